"""The page about the demo shows every family that has a committed result."""

import json
import shutil
from pathlib import Path

import pytest

from assembler.demo import seeds
from tests.benchmarks.harness import reports
from tests.benchmarks.pages import demo

OTHERS = [seed for seed in seeds.SEEDS.values() if seed is not seeds.DEFAULT]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the usual family's result alone."""
    shutil.copy(reports.RESULTS / "demo.json", tmp_path)
    monkeypatch.setattr(reports, "RESULTS", tmp_path)
    return tmp_path


def test_a_family_without_a_result_is_left_out(results: Path) -> None:
    tables = demo.tables()
    assert tables["other-families"] == ""
    assert tables["families"].count("\n| `") == 1
    assert "demo-" not in tables["sources"]


def test_a_family_with_a_result_stands_behind_the_usual_one(results: Path) -> None:
    seed = OTHERS[0]
    text = (results / "demo.json").read_text()
    for domain in ("german-manuals", "metamath", "dictionary"):
        text = text.replace(f'"{domain}"', f'"{domain}{seed.suffix}"')
    (results / f"demo-{seed.name}.json").write_text(json.dumps(json.loads(text)))

    tables = demo.tables()
    assert tables["families"].index("smollm2-135m") < tables["families"].index(seed.name)
    assert f"./nexusmix demo --family {seed.name} --exit" in tables["sources"]
    heading, others = tables["other-families"].split("\n\n", maxsplit=1)
    assert heading == f"### `{seed.name}`"
    # The experts of all families have the same titles.
    assert others.startswith(tables["perplexity"])
