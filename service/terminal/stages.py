"""Shows the stages of a long command: what runs now, and a line with its seconds at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.status import Status
from rich.text import Text

from service.terminal.printable import printable


@dataclass
class Stage:
    """One stage; `result` is printed at the end of its line."""

    title: str
    result: str = ""
    seconds: float = 0.0
    _status: Status | None = field(default=None, repr=False)

    def say(self, text: str) -> None:
        """Show what the stage does now. Nothing is printed to a file."""
        if self._status is not None:
            self._status.update(Text(printable(f"{self.title}: {text}")))


class Stages:
    """Measures stages and prints a line for each."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.done: list[Stage] = []
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the stages began."""
        return time.monotonic() - self._began

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Run a stage until the block ends. A stage that raises prints no line."""
        began = time.monotonic()
        with self.console.status(Text(title)) as status:
            stage = Stage(title, _status=status)
            yield stage
        stage.seconds = time.monotonic() - began
        self.done.append(stage)
        self.console.print(
            Text.assemble(
                f"{stage.seconds:7.1f} s  ", (title, "bold"), printable(f"  {stage.result}")
            )
        )
