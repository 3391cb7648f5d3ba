"""The form of keys, which finds typing errors before the database is asked, and their file."""

import stat
from pathlib import Path

import pytest

from registry.errors import InvalidInput, NotFound, Unauthenticated
from service import key_format

OLD = "nxm_" + "a" * 43


def test_a_key_has_the_form_of_one() -> None:
    key = key_format.generate()
    assert key != key_format.generate()
    assert key.startswith("nxm_")
    assert len(key) == 4 + 43 + 8
    assert key_format.check(key) == key
    assert key_format.check(OLD) == OLD, "from before the checksum"


def test_every_mistyped_character_is_found() -> None:
    key = key_format.generate()
    for position in range(len(key)):
        other = "0" if key[position] != "0" else "1"
        with pytest.raises(Unauthenticated, match="copy it again"):
            key_format.check(key[:position] + other + key[position + 1 :])


@pytest.mark.parametrize(
    "wrong", ["", "nxm_", OLD[:-1], f"{OLD}0", f"{OLD}\n", f" {OLD}", "a" * 51]
)
def test_other_texts_are_no_keys(wrong: str) -> None:
    with pytest.raises(Unauthenticated):
        key_format.check(wrong)


def test_the_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "api-key"
    with pytest.raises(NotFound, match="up"):
        key_format.read_file(path)
    key = key_format.read_or_make_file(path)
    assert key_format.read_or_make_file(path) == key_format.read_file(path) == key
    path.chmod(0o644)
    key_format.read_or_make_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"nxm_cut", b"\xff\xfe", OLD.encode() + b" other"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "api-key"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="restore it") as refused:
        key_format.read_or_make_file(path)
    assert str(path) in refused.value.detail
    assert path.read_bytes() == content
