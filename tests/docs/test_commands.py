"""Tests of the nexusmix commands on pages: they exist, with their options and arguments."""

from pathlib import Path

import pytest
from typer.exceptions import TyperException

from tests.docs import pages
from tests.docs.commands import commands, parse

SHELLS = ("sh", "bash", "console")


def documented() -> list[tuple[Path, int, str]]:
    """Return every shell block that calls nexusmix: page, line and code."""
    return [
        (page, block.line, block.code)
        for page in pages.pages()
        for block in pages.blocks(page)
        if block.language in SHELLS and any(commands(block.code))
    ]


@pytest.mark.parametrize(
    ("page", "line", "code"),
    documented(),
    ids=[f"{pages.name(page)}:{line}" for page, line, _ in documented()],
)
def test_documented_commands_are_valid(page: Path, line: int, code: str) -> None:
    for words in commands(code):
        try:
            parse(words)
        except TyperException as error:
            pytest.fail(f"{pages.name(page)}:{line}: {' '.join(words)}: {error}")


def test_commands_are_found_in_all_places_of_a_shell_script() -> None:
    shell = (
        "NEXUSMIX_PORT=1 ./nexusmix up > out.txt 2>&1 &   # a comment: ./nexusmix demo\n"
        'curl -H "Authorization: Bearer $(./nexusmix key)" http://x | ./nexusmix status\n'
        "cat > file <<'EOF'\n./nexusmix nothing\nEOF\n"
        "curl -d '{\n./nexusmix nothing\n}' http://x; ./nexusmix status\n"
        "nexusmix plan mix a b c \\\n  --family x && echo nexusmix\n"
    )
    assert list(commands(shell)) == [
        ["up"],
        ["status"],
        ["status"],
        ["plan", "mix", "a", "b", "c", "--family", "x"],
        ["key"],
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        ["mix", "only-a-name"],
        ["mix", "a", "b", "c", "--fam", "x"],
        ["mix", "a", "b", "c", "--family", "x", "--tokens", "many"],
        ["plan", "nothing"],
        ["bench", "nothing"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_refused(words: list[str]) -> None:
    with pytest.raises(TyperException):
        parse(words)
