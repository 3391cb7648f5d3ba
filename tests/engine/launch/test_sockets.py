"""Sockets lie where only their owner reaches them."""

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from engine.launch import sockets
from registry.errors import Unavailable
from registry.settings import settings


@pytest.fixture(autouse=True)
def short_home(servers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_HOME", str(servers / "sockets"))
    settings.cache_clear()


def test_the_folder_is_closed_to_others() -> None:
    path = sockets.new_socket()
    assert path.parent == settings().home / "run"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sockets.new_socket() != path


def test_a_long_home_has_a_short_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEXUSMIX_HOME", str(tmp_path / ("long" * 30)))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings.cache_clear()
    path = sockets.new_socket()
    assert path.parent.parent == tmp_path
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_of_somebody_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = settings().home / "run"
    run.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "theirs").mkdir()
    if run.exists():
        run.rmdir()
    run.symlink_to(tmp_path / "theirs")
    try:
        with pytest.raises(Unavailable, match="belongs to somebody else"):
            sockets.new_socket()
    finally:
        run.unlink()


def test_sockets_that_nobody_listens_on_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "BOUND_SECONDS", -1.0)
    dead, living = sockets.new_socket(), sockets.new_socket()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(dead))
        server.bind(str(living))
        server.listen()
        ended.close()
        sockets.new_socket()
        assert (dead.exists(), living.exists()) == (False, True)
    os.unlink(living)
