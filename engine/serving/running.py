"""A server that an agent looks after."""

from dataclasses import dataclass, field
from time import monotonic

import httpx

from engine.serving.pulse import Pulse
from engine.vllm_server.vllm_process import Server
from registry.errors import Unavailable
from registry.settings import settings

# Requests routed just before a server began to drain are still on their way.
DRAIN_SECONDS_MIN = 2.0


@dataclass
class Running:
    """A server of this agent.

    `since` is when its present state began, in monotonic seconds; `pulse` watches it while it is
    ready.
    """

    server: Server
    since: float = field(default_factory=monotonic)
    pulse: Pulse | None = None
    draining: bool = False

    def watch(self) -> None:
        """Begin to watch a server that is ready now."""
        self.since, self.pulse = monotonic(), Pulse(self.server)

    def unwatch(self) -> None:
        """Watch it no more."""
        if self.pulse is not None:
            self.pulse.stop()

    def check(self) -> None:
        """Raise Unavailable when the server has ended, or has not worked for too long."""
        limit = settings().engine_silence_seconds
        if self.server.process.poll() is not None:
            self.server.is_ready()
        elif self.pulse is not None and self.pulse.silence() > limit:
            raise Unavailable(f"it has written no token for {limit:g} seconds, and was replaced")

    def idle_since(self) -> float:
        """Return when it was used last, in monotonic seconds."""
        return self.since if self.pulse is None else self.pulse.idle_since()

    def is_drained(self) -> bool:
        """Return whether it has no requests left, has used up its time, or works no more.

        The first call begins to drain it.
        """
        if not self.draining:
            self.draining, self.since = True, monotonic()
        seconds = monotonic() - self.since
        if seconds < DRAIN_SECONDS_MIN:
            return False
        if seconds > settings().drain_seconds:
            return True
        try:
            self.check()
            return self.server.num_requests() == 0
        except Unavailable:
            return True
        except httpx.TransportError:
            return False

    def stop(self, grace: float) -> None:
        """End the server; kill it after `grace` seconds."""
        self.unwatch()
        self.server.stop(grace)
