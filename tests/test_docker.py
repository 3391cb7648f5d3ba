"""The Dockerfiles refer to existing files; no image is built, which would need a daemon."""

import re
from pathlib import Path

import pytest

from tests.chores.locks import ALTERNATIVES

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def text(request: pytest.FixtureRequest) -> str:
    path: Path = request.param
    return path.read_text()


def test_every_stage_is_defined_before_it_is_used(text: str) -> None:
    defined = {"debian:12-slim"}
    for source, name in re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE):
        assert source in defined
        defined.add(name)
    assert set(re.findall(r"--from=(\S+)", text)) <= defined


def test_the_last_stage_has_no_tools_of_chores(text: str) -> None:
    last = text.rpartition("\nFROM ")[2]
    assert last.startswith("run\n")
    assert "./nexusmix docs" not in last
    assert "COPY --from=docs /nexusmix/service/docs_site service/docs_site" in last


def test_the_lock_is_one_of_both(text: str) -> None:
    chosen = re.search(r"NEXUSMIX_LOCK=(\S+)", text)
    assert chosen is None or chosen[1] in {group.name for group in ALTERNATIVES}


def test_the_sources_of_the_documentation_are_in_the_image() -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split())
    assert not {"docs", "tests", "requirements", "migrations"} & ignored
    # A stale local build must not replace the one that the image makes.
    assert "service/docs_site" in ignored
