"""The seeds of the demo are found by name, and agree with what their extras install."""

import re
import tomllib

import pytest

from assembler.demo import seeds
from registry.errors import InvalidInput
from registry.licenses import concerns
from registry.names import check_name
from tests.chores import ROOT
from tests.chores.locks import ADDITIONS, ALTERNATIVES

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
ALL = pytest.mark.parametrize("name", seeds.SEEDS)


@ALL
def test_names_are_valid_and_unknown_licenses_ask_for_consent(name: str) -> None:
    seed = seeds.find(name)
    assert check_name(seed.name, at="") == name
    assert check_name(f"german-manuals{seed.suffix}", at="")
    # A seed whose license SPDX does not know asks for consent.
    assert bool(seed.terms) == bool(concerns({"seed": seed.license}))


@ALL
def test_the_extra_installs_the_packages(name: str) -> None:
    seed = seeds.find(name)
    packages = {part.partition("/")[0].replace("_", "-") for part in seed.parts}
    assert {requirement.partition("==")[0] for requirement in EXTRAS[seed.extra]} >= packages
    locks = [group for group in (*ALTERNATIVES, *ADDITIONS) if seed.extra in group.extras]
    assert locks
    for lock in locks:
        listed = re.findall(r"^([\w-]+)==", (ROOT / lock.path).read_text(), re.MULTILINE)
        assert packages <= set(listed)


def test_suffixes_differ() -> None:
    """Names of mixes and experts belong to one family each."""
    assert len({seed.suffix for seed in seeds.SEEDS.values()}) == len(seeds.SEEDS)


def test_another_name_is_refused_with_all() -> None:
    with pytest.raises(InvalidInput, match=r"no family 'x'; it has smollm2-135m, qwen2.5-coder"):
        seeds.find("x")
