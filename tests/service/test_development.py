"""Chores: what can be run by name."""

import pytest

from registry.errors import NotFound
from service import development


def test_benchmarks_are_those_that_can_be_run() -> None:
    names = development.benchmarks()
    assert "assembly" in names
    assert not {"__init__", "reports", "processes"} & set(names)


def test_an_unknown_benchmark_is_told_with_those_there_are() -> None:
    with pytest.raises(NotFound, match="there are assembly"):
        development.bench("assambly", [])


@pytest.mark.parametrize(
    ("lock", "has_it"), [("requirements.lock", False), ("requirements-cuda.lock", True)]
)
def test_only_cards_get_torchvision(lock: str, has_it: bool) -> None:
    """vLLM imports it when it starts on one; its builds do not import beside torch's CPU build."""
    packages = (development.ROOT / lock).read_text().splitlines()
    assert any(line.startswith("torchvision==") for line in packages) == has_it
