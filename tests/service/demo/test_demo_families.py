"""The demo of each further family runs to its chat. It trains for many minutes.

The packages of its seed are installed by `./nexusmix demo --family NAME`.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI

from assembler.demo import gemma3, seeds
from assembler.demo.demo_seed import DemoSeed
from registry.errors import Unavailable
from registry.settings import settings
from service import home as homes
from service.client import local
from tests.service.command_line import COMMAND, run_here
from tests.service.services import wait_for

OTHERS = [seed for seed in seeds.SEEDS.values() if seed is not seeds.DEFAULT]
HOURS = 3 * 3600
STOP_SECONDS = 120


@pytest.fixture
def home(home: Path, servers: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder outside pytest's: another run of pytest would lock the database out of that."""
    folder = servers / "family"
    monkeypatch.setenv("NEXUSMIX_HOME", str(folder))
    monkeypatch.setenv("NEXUSMIX_PORT", "0")
    settings.cache_clear()
    return folder


@pytest.mark.long
@pytest.mark.parametrize("seed", OTHERS, ids=lambda seed: seed.name)
def test_the_demo_of_a_family_runs_to_its_chat(seed: DemoSeed, home: Path, tmp_path: Path) -> None:
    try:
        seed.files()
    except Unavailable as error:
        pytest.skip(error.detail)
    path = tmp_path / "report.json"
    options = [f"--family={seed.name}", f"--report={path}", "--accept-license"]
    process = subprocess.Popen([*COMMAND, "demo", *options])
    try:
        # Its end before the report is a failure, which the reading of the report tells.
        wait_for(lambda: path.exists() or process.poll() is not None, "the report", seconds=HOURS)
        report = json.loads(path.read_text())
        answer = None if seed is gemma3.SEED else chat(model=f"demo{seed.suffix}")
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_SECONDS) == 130
    finally:
        process.kill()

    # Gemma's is a base model: it completes texts, and knows no chat.
    assert answer is None or answer.strip()
    assert all(completion["text"].strip() for completion in report["completions"])
    assert report["family"] == seed.name
    assert report["gate"]["passed"]
    assert [bar for bar in report["bars"] if not bar["held"]] == []


def chat(*, model: str) -> str:
    """Return what the served mix answers to a question, greedily."""
    holder = homes.holder(settings().home)
    assert holder is not None
    with OpenAI(base_url=f"{holder.address}/v1", api_key=local.key()) as client:
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            max_tokens=32,
            temperature=0,
        )
    return answer.choices[0].message.content or ""


def test_an_unknown_family_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_here("demo", "--family=llama-9") == 1
    assert "the demo has no family 'llama-9'; it has smollm2-135m" in capfd.readouterr().err


@pytest.mark.parametrize("seed", OTHERS, ids=lambda seed: seed.name)
def test_packages_that_are_missing_are_named_at_once(
    seed: DemoSeed, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("assembler.demo.demo_seed.find_spec", lambda name: None)
    assert run_here("demo", f"--family={seed.name}", "--accept-license", "--exit") == 1
    assert f"install nexusmix with its extra `{seed.extra}`" in capfd.readouterr().err


def test_terms_that_nobody_accepts_are_named() -> None:
    command = [*COMMAND, "demo", f"--family={gemma3.SEED.name}"]
    refused = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr == (
        "nexusmix: gemma3-270m is used under the Gemma Terms of Use (ai.google.dev/gemma/terms):"
        " --accept-license accepts them\n"
    )


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [("y", "comes in packages that are not installed"), ("n", "--accept-license accepts them")],
)
def test_terms_are_asked_for_on_a_terminal(answer: str, sentence: str) -> None:
    main, terminal = os.openpty()
    hidden = "import assembler.demo.demo_seed as d; d.find_spec = lambda name: None;"
    code = f"{hidden} from service.cli import app; app.main()"
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "demo", f"--family={gemma3.SEED.name}"],
            stdin=terminal,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.write(main, f"{answer}\n".encode())
        _, printed = process.communicate(timeout=STOP_SECONDS)
    finally:
        os.close(terminal)
        os.close(main)
    assert "used under the Gemma Terms of Use" in printed
    assert "Do you accept them?" in printed
    assert sentence in printed
