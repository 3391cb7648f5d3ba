"""Tells whether a server still works: a thread gives it a token to write again and again."""

import threading
from time import monotonic

from engine.vllm_server.vllm_process import Server

PROBE_SECONDS = 5.0
# One step of the network may take long on a busy machine. Until then a server that answers about
# itself and computes counts as working.
COMPUTING_SECONDS = 300.0
# CPU seconds from one look to the next that show that the network computes.
CPU_SECONDS = 0.5
# Tokens of one probe: it reads one and writes one.
PROBE_TOKENS = 2


class Pulse:
    """Watches one ready server until `stop`.

    A server works if it writes a token for us, or if its counters show that it reads or writes
    tokens of others: on a busy server our own request waits in the queue.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._worked = self._computed = self._looked = self._used = monotonic()
        self._num_tokens: int | None = None
        self._cpu_seconds = 0.0
        self._stopping = threading.Event()
        threading.Thread(target=self._run, name=f"pulse of {server.model}", daemon=True).start()

    def silence(self) -> float:
        """Return for how many seconds the server has not worked."""
        now = monotonic()
        is_computing = self._computed > self._worked and now < self._worked + COMPUTING_SECONDS
        return now - (self._computed if is_computing else self._worked)

    def idle_since(self) -> float:
        """Return when others used the server last, in monotonic seconds, or since we watch it."""
        return self._used

    def stop(self) -> None:
        """Probe no more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = monotonic()
            self.look()
            self._stopping.wait(max(0.0, began + PROBE_SECONDS - monotonic()))

    def look(self) -> None:
        """Probe, and compare the server's counters with those of the last look."""
        has_written = self._server.probe(PROBE_SECONDS)
        if has_written:
            self._worked = monotonic()
        num_tokens, cpu_seconds = self._server.num_tokens(), self._server.cpu_seconds()
        if num_tokens is None:
            return
        looked = monotonic()
        if self._num_tokens is not None and num_tokens != self._num_tokens:
            # The work was done at some time since the last look.
            self._worked = max(self._worked, self._looked)
            if num_tokens > self._num_tokens + PROBE_TOKENS * has_written:
                self._used = looked
        elif cpu_seconds > self._cpu_seconds + CPU_SECONDS:
            self._computed = looked
        self._num_tokens, self._cpu_seconds, self._looked = num_tokens, cpu_seconds, looked
