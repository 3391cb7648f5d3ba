"""Stages of a long command: what runs now on a terminal, one line with its seconds when it ends."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.status import Status


@dataclass
class Stage:
    """One stage; `result` is what its line says at the end."""

    title: str
    result: str = ""
    seconds: float = 0.0
    _status: Status | None = field(default=None, repr=False)

    def say(self, text: str) -> None:
        """What it does now; only shown on a terminal."""
        if self._status is not None:
            self._status.update(f"{self.title}: {escape(text)}")


class Stages:
    """Times stages in the order they are entered, and prints them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.done: list[Stage] = []
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first."""
        return time.monotonic() - self._began

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Raising leaves no line: the error speaks."""
        began = time.monotonic()
        with self.console.status(title) as status:
            stage = Stage(title, _status=status)
            yield stage
        stage.seconds = time.monotonic() - began
        self.done.append(stage)
        self.console.print(
            f"{stage.seconds:7.1f} s  [bold]{title}[/bold]  {escape(stage.result)}",
            highlight=False,
        )
