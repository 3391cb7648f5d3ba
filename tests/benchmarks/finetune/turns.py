"""Run contenders in processes of their own, each with its own environment and allocator."""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self, cast
from unittest import mock

from tests.benchmarks.finetune import arithmetic
from tests.benchmarks.finetune.frameworks import Contender

STEPS_PER_TURN = 3


class Turns:
    """A contender in a process, which waits between its turns.

    `make` creates it there, with the environment of this process and `env`. A turn has one step
    that is not timed, and `STEPS_PER_TURN` timed ones.
    """

    def __init__(self, make: Callable[[], Contender], *, env: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_play, args=(make, theirs), daemon=True)
        with mock.patch.dict(os.environ, env):
            self._process.start()
        # With this copy closed, the death of the process is noticed.
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.join()

    def bytes_held(self) -> int:
        """Return the bytes that a step keeps from its forward to its backward pass."""
        return int(self._ask(_bytes_held))

    def implementations(self) -> dict[str, str]:
        """Return the chosen implementations of the contender."""
        return cast(dict[str, str], self._ask(_implementations))

    def seconds(self) -> float:
        """Return the seconds of a step in one turn."""
        return float(self._ask(_seconds))

    def _ask(self, question: Callable[[Contender], Any]) -> Any:
        self._ours.send(question)
        return self._ours.recv()


def _play(make: Callable[[], Contender], pipe: Connection) -> None:
    contender = make()
    while True:
        question = pipe.recv()
        pipe.send(question(contender))


def _bytes_held(contender: Contender) -> int:
    return arithmetic.bytes_held(contender.step, contender.network)


def _implementations(contender: Contender) -> dict[str, str]:
    return contender.implementations


def _seconds(contender: Contender) -> float:
    device = next(contender.network.parameters()).device
    contender.step()
    arithmetic.wait_for(device)
    started_at = time.perf_counter()
    for _ in range(STEPS_PER_TURN):
        contender.step()
    arithmetic.wait_for(device)
    return (time.perf_counter() - started_at) / STEPS_PER_TURN
