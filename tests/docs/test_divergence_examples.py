"""Tests of the examples on the page of the divergence library, on tiny models and servers."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.docs import pages
from tests.engine.divergence import dialect
from tests.engine.divergence.tables import table

PAGE = pages.SITE / "reference" / "divergence.md"
MAX_LINES = 10


def example(heading: str) -> str:
    """Return the first block of Python below a heading of the page."""
    lines = PAGE.read_text().splitlines()
    below = lines.index(heading) + 1
    block = next(block for block in pages.blocks(PAGE) if block.line > below)
    assert block.language == "python"
    return block.code


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_folders_are_compared_in_ten_lines(tmp_path: Path) -> None:
    tiny.write_checkpoint(tmp_path / "seed")
    tiny.write_checkpoint(tmp_path / "expert", expert=1)
    (tmp_path / "prompts.txt").write_text("to be, or\nnot to be\n")
    code = example("## Two Hugging Face folders")
    assert len([line for line in code.splitlines() if line]) <= MAX_LINES
    assert "% of tokens equal, first divergence after" in run(code, tmp_path)


def test_two_servers_are_compared(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("1 2\n3 4 1\n")
    reference, candidate = table(1, ties=False), table(1, strays=0.5, ties=False)
    code = example("## Two servers").replace('"seed"', '"table"').replace('"expert"', '"table"')
    with dialect.serving(reference) as first, dialect.serving(candidate) as second:
        code = code.replace("http://127.0.0.1:8000/v1", first)
        code = code.replace("http://127.0.0.1:8001/v1", second)
        assert run(code, tmp_path).startswith("Summary(num_prefixes=2,")
