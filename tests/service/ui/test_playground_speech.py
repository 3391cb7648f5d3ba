"""The playground in a browser against a real vLLM with a tiny mix: who speaks is who computed.

The mix writes nonsense, so the page is compared with what the endpoint answers to the same request.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from engine.vllm_server import vllm_process
from engine.vllm_server.vllm_process import Server
from registry import settings
from registry.blobs.blobs import BlobStore, LocalBlobs
from registry.database import db
from tests.assembler import networks, rows
from tests.service.ui.speaking_engine import add_mix

pytestmark = pytest.mark.slow

QUESTION = "to be, or not to be"
NUM_TOKENS = 16
# How to run the code of a request.
CODE = {"curl": ["bash", "-c"], "python": [sys.executable, "-c"]}
# Names and combination are those of the recipe that the service knows.
MIX = replace(
    networks.ARCHITECTURES["convex"], num_experts=2, expert_names=("expert-1", "expert-2")
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    blobs = LocalBlobs(home / "blobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXUSMIX_HOME", str(home))
        settings.settings.cache_clear()
        mix = networks.store(blobs, MIX)
        log_path = home / "server.log"
        with vllm_process.serving(mix, blobs=blobs, log_path=log_path, model="mine") as running:
            running.wait_ready()
            yield running


@pytest.fixture
def playground(page: Page, store: BlobStore, served: Server) -> Page:
    """The page, with a model that answers at once and in the same way each time."""
    with db.transaction() as session:
        rows.add_all(session, store)
    add_mix(store, address=served.address)
    page.goto("/playground")
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Max tokens").fill(str(NUM_TOKENS))
    return page


def say(page: Page) -> Locator:
    """Ask, wait for the end of the answer, and return its tokens."""
    page.get_by_label("Message").fill(QUESTION)
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".speed")).to_contain_text("first after")
    return page.locator(".line.assistant .token")


def ask(address: str, key: str, **nexus: Any) -> dict[str, Any]:
    """Return the endpoint's choice for the same question."""
    request = {
        "model": "mine",
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": NUM_TOKENS,
        "nexus": {"routing": True, **nexus},
    }
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{address}/v1/chat/completions", json=request, headers=headers, timeout=60)
    choice: dict[str, Any] = answer.raise_for_status().json()["choices"][0]
    return choice


def speakers(choice: dict[str, Any]) -> list[str]:
    return [max(row, key=row.__getitem__) for row in choice["nexus"]["tokens"]]


def test_tokens_have_the_color_of_the_expert_that_computed_them(
    playground: Page, address: str, key: str
) -> None:
    tokens = say(playground)
    expected = ask(address, key)

    assert playground.locator(".line.assistant").text_content() == expected["message"]["content"]
    shown = tokens.evaluate_all("all => all.map(each => each.dataset.speaker)")
    assert len(shown) > 1
    # What ends an answer is no text.
    assert shown == speakers(expected)[: len(shown)]


def test_an_expert_that_is_off_computes_nothing(playground: Page, address: str, key: str) -> None:
    playground.get_by_label("expert-1 may speak").uncheck()
    tokens = say(playground)
    expected = ask(address, key, disable=["expert-1"])

    assert playground.locator(".line.assistant").text_content() == expected["message"]["content"]
    assert "expert-1" not in tokens.evaluate_all("all => all.map(each => each.dataset.speaker)")
    expect(playground.locator(".speakers li").first.locator("output")).to_have_text("0 %")


def test_the_code_of_a_request_runs(playground: Page, key: str) -> None:
    answer = "".join(say(playground).all_text_contents())
    playground.get_by_role("button", name="Code").click()
    texts = {name: playground.locator(f"#{name}").text_content() or "" for name in CODE}
    playground.keyboard.press("Escape")

    for name, command in CODE.items():
        environment = os.environ | {"NEXUSMIX_KEY": key}
        told = subprocess.run(
            [*command, texts[name]],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
        if name == "python":
            assert told.stdout == answer
        else:
            assert told.stdout.rstrip().endswith("data: [DONE]")
            assert '"nexus":{"tokens":' in told.stdout


def test_weights_of_every_block_are_shown(playground: Page) -> None:
    playground.get_by_label("Weights of every block").check()
    say(playground).first.hover()

    blocks = playground.locator("#shares .share").first.locator(".blocks span")
    expect(blocks).to_have_count(MIX.num_hidden_layers)
