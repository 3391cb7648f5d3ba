"""The playground in a browser, with engines that say fixed words: colors, switches and settings."""

import re

import pytest
from playwright.sync_api import Page, expect

from engine.serving.tables import Deployment, DeploymentState
from registry.blobs.blobs import BlobStore
from registry.database import db
from tests.service.ui.speaking_engine import (
    SHARED,
    WORDS,
    SpeakingEngine,
    add_mix,
    refusal,
    say,
    speaking,
    tokens,
)


def test_a_chat_streams_the_answer(page: Page, engine: SpeakingEngine) -> None:
    page.goto("/playground")
    say(page, "What next?")

    expect(page.locator(".line.assistant")).to_have_text("Fry the mast.")
    expect(page.locator(".speed")).to_contain_text(re.compile(r"3 tokens.* first after \d"))


def test_tokens_have_the_color_of_who_spoke(page: Page, engine: SpeakingEngine) -> None:
    page.goto("/playground")
    say(page, "What next?")

    expect(tokens(page)).to_have_count(3)
    speakers = tokens(page).evaluate_all("all => all.map(each => each.dataset.speaker)")
    assert speakers == ["expert-1", SHARED, "expert-2"]
    colors = tokens(page).evaluate_all("all => all.map(e => getComputedStyle(e).backgroundColor)")
    assert len(set(colors)) == 3
    legend = page.locator(".speakers li")
    assert [re.split(r"version|the seed", text)[0] for text in legend.all_text_contents()] == [
        "expert-1",
        "expert-2",
        SHARED,
    ]
    expect(legend.nth(1)).to_contain_text("version 1 · Apache-2.0")
    # 0.1 + 0.2 + 0.9 of three tokens.
    expect(legend.nth(1)).to_contain_text("40 %")


def test_the_shares_of_a_token_are_shown_by_pointer_and_by_keys(
    page: Page, engine: SpeakingEngine
) -> None:
    page.goto("/playground")
    say(page, "What next?")
    card = page.locator("#shares")
    tokens(page).nth(2).hover()
    expect(card.locator(".share").first).to_have_text(re.compile("expert-2.*90 %"))
    expect(card).to_contain_text("mast.")
    expect(card).to_contain_text("probability 78 %")

    page.get_by_role("heading", name="Playground").hover()
    expect(card).to_be_hidden()
    tokens(page).first.focus()
    expect(card.locator(".share").first).to_contain_text("expert-1")
    page.keyboard.press("ArrowRight")
    expect(tokens(page).nth(1)).to_be_focused()
    expect(card.locator(".share").first).to_contain_text(SHARED)
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()


def test_weights_of_every_block_are_asked_for_and_shown(page: Page, engine: SpeakingEngine) -> None:
    engine.words = [("Fry", {"expert-1": [1.0, 0.5], "expert-2": [0.0, 0.25], SHARED: [0.0, 0.25]})]
    page.goto("/playground")
    page.get_by_label("Weights of every block").check()
    say(page, "What next?")
    tokens(page).first.hover()

    share = page.locator("#shares .share").first
    expect(share).to_contain_text("expert-1")
    expect(share).to_contain_text("75 %")
    expect(share.locator(".blocks span")).to_have_count(2)
    assert engine.requests[0]["nexus"] == {"routing": "blocks"}


def test_a_switch_turns_an_expert_off(page: Page, engine: SpeakingEngine) -> None:
    page.goto("/playground")
    page.get_by_label("expert-2 may speak").uncheck()
    # Somebody must speak.
    expect(page.get_by_label("expert-1 may speak")).to_be_disabled()
    say(page, "What next?")
    expect(tokens(page)).to_have_count(3)
    page.get_by_label("expert-2 may speak").check()
    say(page, "And then?")
    expect(tokens(page)).to_have_count(6)

    assert [asked["nexus"] for asked in engine.requests] == [
        {"routing": True, "disable": ["expert-2"]},
        {"routing": True},
    ]
    roles = [message["role"] for message in engine.requests[1]["messages"]]
    assert roles == ["user", "assistant", "user"]


def test_settings_are_sent(page: Page, engine: SpeakingEngine) -> None:
    page.goto("/playground")
    page.get_by_label("System prompt").fill("Be brief.")
    values = {"Temperature": "0", "Max tokens": "12", "Top p": "0.5", "Seed": "7"}
    for name, value in values.items():
        page.get_by_label(name, exact=True).fill(value)
    say(page, "What next?")
    expect(tokens(page)).to_have_count(3)

    [asked] = engine.requests
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    numbers = {name: asked[name] for name in ("temperature", "max_tokens", "top_p", "seed")}
    assert numbers == {"temperature": 0, "max_tokens": 12, "top_p": 0.5, "seed": 7}


def test_a_wrong_setting_is_explained_beside_it_and_nothing_is_sent(
    page: Page, engine: SpeakingEngine
) -> None:
    page.goto("/playground")
    page.get_by_label("Temperature").fill("9")
    say(page, "What next?")

    expect(page.locator("#temperature-problem")).to_contain_text("less than or equal to 2")
    expect(page.get_by_label("Temperature")).to_be_focused()
    expect(page.get_by_label("Message")).to_have_value("What next?")
    page.get_by_label("Temperature").fill("1")
    expect(page.locator("#temperature-problem")).to_be_hidden()
    assert engine.requests == []


def test_what_the_engine_refuses_is_shown_beside_its_setting_and_what_was_typed_stays(
    page: Page, engine: SpeakingEngine, complaints: list[str]
) -> None:
    engine.refusal = {
        "message": "at most 100 fit",
        "type": "BadRequestError",
        "param": "max_tokens",
    }
    page.goto("/playground")
    say(page, "What next?")

    expect(page.locator("#max_tokens-problem")).to_have_text("at most 100 fit")
    expect(page.get_by_label("Message")).to_have_value("What next?")
    engine.refusal = None
    page.get_by_label("Message").press("Enter")
    expect(tokens(page)).to_have_count(3)
    # The turn that failed has gone.
    expect(page.locator(".line.user")).to_have_count(1)
    complaints.clear()  # the browser reports the 400


def test_an_engine_that_cannot_say_who_spoke_still_answers(
    page: Page, engine: SpeakingEngine, complaints: list[str]
) -> None:
    message = "`nexus` is not there for models on a card"
    engine.refusal = refusal(message, param="nexus")
    page.goto("/playground")
    say(page, "What next?")

    expect(page.locator(".line.assistant")).to_have_text("Fry the mast.")
    expect(page.locator(".pane > .problem")).to_have_text(message)
    complaints.clear()  # the browser reports the 400


def test_a_chat_shows_why_there_is_no_answer(
    page: Page, family: BlobStore, complaints: list[str]
) -> None:
    add_mix(family, address="http://127.0.0.1:1")  # nothing listens on this address
    page.goto("/playground")
    page.get_by_label("Message").fill("Anybody?")
    page.get_by_role("button", name="Send").click()

    expect(page.locator(".line.failed")).to_contain_text("being restarted")
    expect(page.get_by_label("Message")).to_have_value("Anybody?")
    complaints.clear()  # the browser reports the 503


def test_an_answer_is_stopped(page: Page, engine: SpeakingEngine) -> None:
    engine.is_endless = True
    page.goto("/playground")
    say(page, "What next?")
    expect(tokens(page)).to_have_count(3)
    page.get_by_role("button", name="Stop").click()

    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.locator(".line.assistant")).to_have_text("Fry the mast.")


def test_a_new_chat_forgets_the_old_one(page: Page, engine: SpeakingEngine) -> None:
    page.goto("/playground")
    say(page, "What next?")
    expect(tokens(page)).to_have_count(3)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    say(page, "Again?")
    expect(tokens(page)).to_have_count(3)
    assert len(engine.requests[1]["messages"]) == 1


def test_a_model_without_experts_has_no_legend(page: Page, family: BlobStore) -> None:
    with speaking([(word, {}) for word, _ in WORDS]) as (engine, address):
        add_mix(family, name="mean", address=address, preset="merge")
        page.goto("/playground#model=mean")
        expect(page.locator(".pane")).to_contain_text("One network")
        expect(page.locator(".speakers")).to_be_hidden()
        say(page, "What next?")
        expect(page.locator(".line.assistant")).to_have_text("Fry the mast.")
        assert "nexus" not in engine.requests[0]


def test_nothing_served_says_what_to_do(page: Page, database: str) -> None:
    page.goto("/playground")
    expect(page.get_by_role("heading", name="No model is served yet")).to_be_visible()
    page.get_by_role("link", name="See the mixes").click()
    expect(page.get_by_role("heading", name="Mixes", exact=True)).to_be_visible()


def test_a_starting_model_opens_by_itself(page: Page, engine: SpeakingEngine) -> None:
    with db.transaction() as session:
        [row] = session.query(Deployment).all()
        row.state = DeploymentState.STARTING
    page.goto("/playground#model=mine")
    expect(page.get_by_text("mine is starting")).to_be_visible()
    with db.transaction() as session:
        [row] = session.query(Deployment).all()
        row.state = DeploymentState.READY
    expect(page.get_by_label("Model")).to_have_value("mine")
    assert page.url.endswith("#model=mine")


@pytest.mark.parametrize("width", [360, 1280])
def test_the_playground_fits_the_screen(page: Page, engine: SpeakingEngine, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.goto("/playground#model=mine&model2=mine")
    say(page, "What next? " * 40)
    expect(tokens(page)).to_have_count(6)
    tokens(page).nth(2).hover()
    expect(page.locator("#shares")).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth") <= width
