"""Interrupting the demo, and its prompts. `./nexusmix demo` itself runs all of it.

Covers: demo_family, service.runtime.background.
"""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from assembler.demo import seeds
from assembler.demo.corpora import domains, public_texts
from assembler.recipes.recipe import Finetune
from assembler.training.expert_training import ExpertTraining
from registry.catalog.documents import Document, serialize
from registry.settings import settings
from service import home as homes
from service.demo import demo
from service.runtime import background
from service.runtime.supervisor import answers
from tests.service.command_line import COMMAND
from tests.service.services import wait_for

STOP_SECONDS = 60


@pytest.fixture
def corpora(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put texts of every domain into the cache, so that none is fetched."""
    for domain in domains.EXPERT_DOMAINS + domains.PROJECTION_DOMAINS:
        name = f"{domain.name}-{public_texts.DOCUMENTS_PER_DOMAIN}"
        folder = settings().cache_path / "corpora" / str(domains.EXTRACTION) / name
        folder.mkdir(parents=True)
        (folder / domains.DOCUMENTS).write_bytes(
            serialize([Document("1", "a text", "train"), Document("2", "another", "held-out")])
        )


@pytest.mark.slow
def test_interrupted_demo_leaves_no_process_and_a_usable_folder(
    corpora: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_PORT", "0")
    settings.cache_clear()
    process = subprocess.Popen([*COMMAND, "demo"], stderr=subprocess.PIPE)
    try:
        wait_for(serves, "a service that answers")
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=STOP_SECONDS)
    finally:
        process.kill()

    assert process.returncode == 130
    assert b"stopped" in stderr
    assert [child for child in started if child.is_running()] == []
    with background.running() as service:
        assert service.wait().startswith("http://127.0.0.1:")


def serves() -> bool:
    holder = homes.holder(settings().home)
    return holder is not None and answers(holder.address)


def test_prompt_is_the_beginning_of_a_held_out_text(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(100)]
    text = "  \n".join(words)
    path = tmp_path / "documents.jsonl"
    path.write_bytes(
        serialize([Document("1", "seen in training", "train"), Document("2", text, "held-out")])
    )

    assert demo.prompt(path).split() == words[: demo.PROMPT_WORDS]
    assert text.startswith(demo.prompt(path))


def test_the_usual_family_is_trained_as_presets_and_defaults_say() -> None:
    """So pages, benchmarks and caches of experts agree with the demo."""
    seed = seeds.DEFAULT
    assert ExpertTraining().learning_rate == seed.learning_rate
    rate = demo.FINETUNE_RATE * seed.learning_rate
    assert Finetune(tokens=1).learning_rate == rate
