"""Packages are chosen and unpacked, and missing ones are named; no test uses a network."""

import os
import stat
from pathlib import Path

import pytest

from assembler.demo.corpora import debian
from registry.errors import Unavailable


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text("#!/bin/sh\n" + script)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a fake apt whose archive has the empty packages manual-9 and manual-10."""
    folder = tmp_path / "tools"
    tool(
        folder, "apt-get", 'case "$*" in *download*) for p; do :; done; : > "${p}_1_all.deb";; esac'
    )
    tool(folder, "apt-cache", "printf 'manual-9\\nmanual-10\\nother\\n'")
    tool(folder, "dpkg", 'mkdir -p "$3/usr"')
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_the_newest_of_numbered_packages_is_unpacked(tools: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    unpacked = debian.unpack([r"manual-\d+"], tmp_path, on_progress=messages.append)
    assert unpacked == {r"manual-\d+": tmp_path / "manual-10"}
    assert (tmp_path / "manual-10" / "usr").is_dir()
    assert messages[-1] == "unpacking manual-10"


def test_a_missing_package_is_named_with_the_message_of_apt(tools: Path, tmp_path: Path) -> None:
    tool(tools, "apt-get", "echo 'E: no network' >&2; exit 100")
    with pytest.raises(Unavailable, match=r"no Debian package manpages-xx: E: no network"):
        debian.unpack(["manpages-xx"], tmp_path, on_progress=lambda line: None)


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="apt-get is missing"):
        debian.unpack(["manual"], tmp_path, on_progress=lambda line: None)
