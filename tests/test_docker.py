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
    assert "COPY --from=docs --chown=nexusmix:nexusmix /nexusmix/service/docs_site" in last


def test_everything_runs_as_a_user_who_owns_the_data(text: str) -> None:
    _, first, *others = text.split("\nFROM ")
    before, _, after = first.partition("\nUSER nexusmix\n")
    assert re.search(r"useradd .*nexusmix", before)
    assert re.search(r"install --directory --owner=nexusmix .*--mode=700 /data", before)
    assert "RUN ./nexusmix" not in before
    assert "RUN ./nexusmix" in after, "the environment belongs to the user"
    # Each later stage is made from the first one, and so keeps its user.
    for stage in others:
        assert re.match(r"run( AS \w+)?\n", stage)
        assert "USER" not in stage
    copies = re.findall(r"^COPY (.*)$", text, re.MULTILINE)
    assert copies
    assert all("--chown=nexusmix:nexusmix" in copy for copy in copies)


def test_the_lock_is_one_of_both(text: str) -> None:
    chosen = re.search(r"NEXUSMIX_LOCK=(\S+)", text)
    assert chosen is None or chosen[1] in {group.name for group in ALTERNATIVES}


def test_the_sources_of_the_documentation_are_in_the_image() -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split())
    assert not {"docs", "tests", "requirements", "migrations"} & ignored
    # A stale local build must not replace the one that the image makes.
    assert "service/docs_site" in ignored
