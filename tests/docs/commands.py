"""Find nexusmix commands in shell blocks, and parse them like the command line."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from typer import Exit
from typer.core import TyperGroup
from typer.exceptions import TyperException

from reference_pages.command_line import program
from service.cli.app import app
from tests.benchmarks import BENCHMARKS
from tests.chores.__main__ import app as chores

PROGRAMS = ("./nexusmix", "nexusmix")
OPERATORS = re.compile(r"[();<>|&\n]+")
SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1(.*?)\n.*?^\2$", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"(?<!\S)#.*")


def commands(shell: str) -> Iterator[list[str]]:
    """Yield the words of each nexusmix command, without the program's name."""
    shell = COMMENT.sub("", HEREDOC.sub(r"\3", shell.replace("\\\n", " ")))
    inner = SUBSTITUTION.findall(shell)
    for text in (SUBSTITUTION.sub("OUTPUT", shell), *inner):
        for words in _simple(text):
            program_at = next((i for i, word in enumerate(words) if "=" not in word), None)
            if program_at is not None and words[program_at] in PROGRAMS:
                yield words[program_at + 1 :]


def parse(words: Sequence[str]) -> None:
    """Parse one command without running it. Raises TyperException for a wrong command."""
    is_chore = bool(words) and words[0] in program(chores).commands
    with suppress(Exit):  # raised by a command that prints its help
        _parse(program(chores if is_chore else app), "nexusmix", list(words))
    if words[:1] == ["bench"] and len(words) > 1 and words[1] not in BENCHMARKS:
        raise TyperException(f"No such benchmark {words[1]!r}.")


def _parse(command: Any, name: str, words: list[str], parent: Any = None) -> None:
    context = command.make_context(name, words, parent=parent)
    if isinstance(command, TyperGroup):
        # The words that a group has not read begin with the name of its command.
        rest = [*context._protected_args, *context.args]
        subname, subcommand, rest = command.resolve_command(context, rest)
        _parse(subcommand, subname or name, rest, context)


def _simple(shell: str) -> Iterator[list[str]]:
    """Yield the words of each simple command, without redirections."""
    lexer = shlex.shlex(shell, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    skip = False
    for word in lexer:
        if OPERATORS.fullmatch(word):
            if set(word) & set("<>"):
                # After a redirection comes its target. The number of `2>` is the word before.
                if words and words[-1].isdigit():
                    words.pop()
                skip = True
                continue
            yield words
            words = []
        elif not skip:
            words.append(word)
        skip = False
    yield words
