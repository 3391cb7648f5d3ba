"""Two panes of the playground, the link to what is set, and the code of a request."""

import ast
import json
import shlex

from playwright.sync_api import Page, expect

from registry.blobs.blobs import BlobStore
from tests.service.ui.speaking_engine import SpeakingEngine, add_mix, say, speaking, tokens


def test_two_panes_answer_the_same_message(
    page: Page, family: BlobStore, engine: SpeakingEngine
) -> None:
    with speaking([("Aye.", {})]) as (other, address):
        add_mix(family, name="mean", address=address, preset="merge")
        page.goto("/playground#model=mine")
        page.get_by_role("button", name="Second pane").click()
        panes = page.locator(".pane")
        expect(panes.nth(1).get_by_label("Model")).to_have_value("mean")
        say(page, "What next?")
        expect(panes.first.locator(".line.assistant")).to_have_text("Fry the mast.")
        expect(panes.nth(1).locator(".line.assistant")).to_have_text("Aye.")
        expect(panes.nth(1).locator(".speed")).to_contain_text("1 token · first after")
        page.get_by_role("button", name="Second pane").click()
        expect(panes).to_have_count(1)
    assert [len(each.requests) for each in (engine, other)] == [1, 1]


def test_one_pane_may_fail_alone(
    page: Page, family: BlobStore, engine: SpeakingEngine, complaints: list[str]
) -> None:
    add_mix(family, name="gone", address="http://127.0.0.1:1", preset="merge")
    page.goto("/playground#model=mine&model2=gone")
    say(page, "What next?")
    expect(tokens(page)).to_have_count(3)
    expect(page.locator(".line.failed")).to_have_count(1)
    # The other one has it.
    expect(page.get_by_label("Message")).to_have_value("")
    complaints.clear()  # the browser reports the 503


def test_a_link_restores_models_switches_settings_and_prompt(
    page: Page, family: BlobStore, engine: SpeakingEngine
) -> None:
    add_mix(family, name="other", address="http://127.0.0.1:1", preset="btx")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/playground#model=mine")
    page.get_by_label("expert-1 may speak").uncheck()
    page.get_by_role("button", name="Second pane").click()
    values = {"System prompt": "Be brief & kind.", "Temperature": "0", "Seed": "7"}
    for name, value in values.items():
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_label("Weights of every block").check()
    page.get_by_label("Message").fill("What #next?")
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")

    page.goto("about:blank")
    page.goto(link)
    first, second = page.locator(".pane").all()
    expect(first.get_by_label("Model")).to_have_value("mine")
    expect(first.get_by_label("expert-1 may speak")).not_to_be_checked()
    expect(second.get_by_label("Model")).to_have_value("other")
    expect(second.get_by_label("seed may speak")).to_be_checked()
    for name, value in values.items():
        expect(page.get_by_label(name, exact=True)).to_have_value(value)
    expect(page.get_by_label("Weights of every block")).to_be_checked()
    expect(page.get_by_label("Message")).to_have_value("What #next?")
    assert engine.requests == []


def test_a_link_survives_signing_in(anonymous_page: Page, key: str, engine: SpeakingEngine) -> None:
    anonymous_page.goto("/playground#model=mine&off=expert-2&temperature=0.5")
    anonymous_page.get_by_label("API key").fill(key)
    anonymous_page.get_by_role("button", name="Sign in").click()

    expect(anonymous_page.get_by_label("expert-2 may speak")).not_to_be_checked()
    expect(anonymous_page.get_by_label("Temperature")).to_have_value("0.5")


def test_a_link_to_what_is_not_there_says_so(page: Page, engine: SpeakingEngine) -> None:
    page.goto("/playground#model=gone")
    expect(page.locator(".pane > .problem")).to_have_text("gone does not answer now; this is mine.")
    # In the same page only the fragment changes.
    page.goto("/playground#model=mine&off=nobody")
    expect(page.locator(".pane > .problem")).to_have_text("nobody: not in mine.")


def test_the_code_is_the_request_and_has_no_key(
    page: Page, engine: SpeakingEngine, key: str
) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/playground")
    page.get_by_label("expert-2 may speak").uncheck()
    question = "Who's \"there\"?\n'Nobody' \\ é"
    page.get_by_label("Message").fill(question)
    page.get_by_role("button", name="Code").click()
    shown = [page.locator(f"#{name}").text_content() or "" for name in ("curl", "python")]
    dialog = page.get_by_role("dialog", name="The same request")
    dialog.get_by_role("button", name="Copy").nth(1).click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == shown[1]
    assert not any(key in text for text in shown)
    page.keyboard.press("Escape")
    page.get_by_label("Message").press("Enter")
    expect(tokens(page)).to_have_count(3)
    [asked] = engine.requests
    assert asked["messages"] == [{"role": "user", "content": question}]

    words = shlex.split(shown[0].replace("\\\n", " "))
    assert json.loads(words[words.index("-d") + 1]) == asked
    [call] = [
        node
        for node in ast.walk(ast.parse(shown[1]))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("completions.create")
    ]
    fields = {str(field.arg): ast.literal_eval(field.value) for field in call.keywords}
    assert fields.pop("extra_body") | fields == asked
