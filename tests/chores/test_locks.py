"""Tests of the committed locks: they agree with each other and name no host."""

import re
from itertools import combinations

import pytest

from tests.chores import ROOT
from tests.chores.locks import ADDITIONS, ALTERNATIVES, Group

SELECTIONS = [(engine, *ADDITIONS) for engine in ALTERNATIVES]


def versions(group: Group) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / group.path).read_text(), re.MULTILINE)
    return {name: version for name, version in lines}


@pytest.mark.parametrize("selection", SELECTIONS, ids=["run", "gpu"])
def test_all_locks_of_a_selection_can_be_installed_together(selection: tuple[Group, ...]) -> None:
    for one, other in combinations(selection, 2):
        first, second = versions(one), versions(other)
        assert {n for n in first.keys() & second.keys() if first[n] != second[n]} == set()


@pytest.mark.parametrize("group", [*ALTERNATIVES, *ADDITIONS], ids=lambda group: group.name)
def test_a_lock_names_versions_and_no_host(group: Group) -> None:
    assert versions(group)
    text = (ROOT / group.path).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(-index-url|-extra-index-url|-find-links|i|f)\b", text, re.M)


@pytest.mark.parametrize(("group", "has_it"), list(zip(ALTERNATIVES, (False, True), strict=True)))
def test_only_the_gpu_lock_has_torchvision(group: Group, has_it: bool) -> None:
    """vLLM imports it on a GPU. Its builds cannot be imported with torch's CPU build."""
    assert ("torchvision" in versions(group)) == has_it


@pytest.mark.parametrize("engine", ALTERNATIVES, ids=lambda group: group.name)
def test_the_locks_of_the_service_have_no_developer_tools(engine: Group) -> None:
    assert not {"pytest", "ruff", "mypy", "mkdocs", "playwright", "scipy"} & versions(engine).keys()
