"""Only one service at a time holds a data folder."""

import os
from pathlib import Path

import httpx
import pytest

from registry.errors import Conflict, OutOfSpace
from service import home as homes


def test_the_holder_is_known_to_others(home: Path) -> None:
    assert homes.holder(home) is None
    with homes.held(home, address="http://here"):
        assert homes.holder(home) == homes.Holder(os.getpid(), "http://here")
    assert homes.holder(home) is None


def test_a_second_holder_is_refused_and_the_first_named(home: Path) -> None:
    with (
        homes.held(home, address="http://here"),
        pytest.raises(Conflict) as caught,
        homes.held(home, address="http://there"),
    ):
        pass
    assert f"process {os.getpid()} at http://here" in caught.value.detail
    assert str(home) in caught.value.detail


@pytest.mark.parametrize("umask", [0, 0o022])
def test_only_the_owner_can_enter(home: Path, umask: int) -> None:
    """Also if the folders are there already, open to everybody."""
    before = os.umask(umask)
    try:
        (home / "logs").mkdir(parents=True)
        with homes.held(home, address=""):
            modes = {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()}
            # Root's database runs under another account, which passes through.
            assert home.stat().st_mode & 0o776 == 0o700
    finally:
        os.umask(before)
    assert {name: modes[name] for name in homes.PRIVATE} == dict.fromkeys(homes.PRIVATE, 0o700)


def test_a_full_disk_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "MIN_FREE_BYTES", 10**30)
    with pytest.raises(OutOfSpace, match="are needed"), homes.held(home, address=""):
        pass


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "http://127.0.0.1:8421"), ("::1", "http://[::1]:8421")],
)
def test_an_address_is_one_that_clients_can_read(host: str, address: str) -> None:
    assert homes.address_of(host, 8421) == address
    assert httpx.URL(homes.address_of(host, 8421)).host == host
