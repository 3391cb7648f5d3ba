"""What was acknowledged, and the audit of what is there at the end."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assembler.tables import FINAL_STATES, MixState
from engine.serving.tables import DeploymentState
from registry.database.tables import VersionState
from registry.errors import NexusmixError
from registry.ingest.checkpoint_folder import CheckpointFolder
from service.client.client import Client
from service.client.deployments import SERVING
from tests.benchmarks.chaos.installation import Installation

POLL_SECONDS = 2.0
END_SECONDS = 30.0
# Errors of the server that a fault explains: away for a moment, too late, disk full.
PROMISED = (503, 504, 507)


@dataclass(frozen=True)
class Refusal:
    """An error of the server. Without a status it came as the last event of a stream."""

    status: int | None
    code: str | None
    fault: str


@dataclass
class Ledger:
    """`experts` by reference with the folder they were read from, `mixes` in order of requests.

    `fault` is the last one that struck. Findings are what must not happen, each a sentence.
    """

    experts: dict[str, Path] = field(default_factory=dict)
    mixes: list[str] = field(default_factory=list)
    deployed: str | None = None
    fault: str = "none"
    refusals: list[Refusal] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    def find(self, finding: str) -> None:
        self.findings.append(finding)

    def refuse(self, status: int | None, code: str | None, *, retry_after: str | None) -> None:
        """Count an error that a chat got; find one that no fault explains."""
        if status is not None and status not in PROMISED:
            self.find(f"a chat got {status} {code} after {self.fault}")
        if status == 503 and retry_after is None:
            self.find(f"a chat got 503 {code} without Retry-After after {self.fault}")
        self.refusals.append(Refusal(status, code, self.fault))

    def refused(self) -> list[dict[str, Any]]:
        """Return how often chats got which error after which fault, the most frequent first."""
        return [
            {"status": each.status, "code": each.code, "fault": each.fault, "times": times}
            for each, times in Counter(self.refusals).most_common()
        ]

    def settle(self, client: Client, *, seconds: float) -> dict[str, int]:
        """Wait until every job has ended, retry each mix that did not succeed, and wait again.

        Returns how many mixes ended in which state, before and after the retries.
        """
        self._await(lambda: self._open_mixes(client), seconds=seconds)
        self._await(lambda: self._unembedded(client), seconds=seconds)
        first = self._states(client)
        for mix in [client.mix(ref) for ref in self.mixes]:
            if mix.state is not MixState.SUCCEEDED:
                client.retry_mix(mix)
        self._await(lambda: self._open_mixes(client), seconds=seconds)
        last = self._states(client)
        return {
            **{f"{state} at first": number for state, number in first.items()},
            **{f"{state} after a retry": number for state, number in last.items()},
        }

    def audit(self, client: Client, *, seconds: float) -> None:
        """Find what was acknowledged and is not there, or has not ended."""
        for ref, source in self.experts.items():
            self._audit_expert(client, ref, source)
        for ref in self.mixes:
            mix = client.mix(ref)
            if mix.state is not MixState.SUCCEEDED:
                self.find(f"{ref} is {mix.state} after a retry: {mix.error}")
            elif [event.id for event in client.events(mix)] == []:
                self.find(f"{ref} has no events")
        self._audit_deployments(client, seconds=seconds)

    def audit_end(self, installation: Installation) -> None:
        """Stop the service, and find processes that it leaves behind."""
        status = installation.service.interrupt()
        if status != 0:
            self.find(f"the service ended with status {status}")
        deadline = time.monotonic() + END_SECONDS
        while left := installation.processes():
            if time.monotonic() > deadline:
                self.find(f"processes left: {[process.cmdline()[:4] for process in left]}")
                return
            time.sleep(POLL_SECONDS)

    def audit_files(self, home: Path) -> dict[str, int]:
        """Find leaked files; return how many the janitor would remove after its grace period."""
        unfinished = [path for path in (home / "cache" / "jobs").glob("*") if path.is_dir()]
        if unfinished:
            self.find(f"checkpoints of finished mixes: {[path.name for path in unfinished]}")
        return {
            "half uploads": len(list(home.glob("blobs/incoming-*"))),
            "temporary files": len(list((home.parent / "temporary").iterdir())),
        }

    def _await(self, find_open: Callable[[], list[str]], *, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while open_refs := find_open():
            if time.monotonic() > deadline:
                self.find(f"not ended {seconds:.0f} s after the last fault: {open_refs}")
                return
            time.sleep(POLL_SECONDS)

    def _open_mixes(self, client: Client) -> list[str]:
        return [ref for ref in self.mixes if client.mix(ref).state not in FINAL_STATES]

    def _unembedded(self, client: Client) -> list[str]:
        return [ref for ref in self.experts if not client.expert_version(ref).embedded]

    def _states(self, client: Client) -> Counter[str]:
        return Counter(client.mix(ref).state.value for ref in self.mixes)

    def _audit_expert(self, client: Client, ref: str, source: Path) -> None:
        version = client.expert_version(ref)
        if version.state is not VersionState.READY or not version.embedded:
            self.find(f"{ref} is {version.state}, embedded: {version.embedded}")
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            try:
                client.download(ref, copy, of="experts")
            except NexusmixError as error:
                self.find(f"{ref} cannot be downloaded: {error.detail}")
                return
            if _digests(copy) != _digests(source):
                self.find(f"{ref} has other bytes than were sent")

    def _audit_deployments(self, client: Client, *, seconds: float) -> None:
        """Find deployments that neither serve nor have ended."""
        deadline = time.monotonic() + seconds
        while True:
            live = [body for body in client.deployments() if body.state in SERVING]
            moving = [body for body in live if body.state is not DeploymentState.READY]
            if not moving or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        for body in moving:
            self.find(f"deployment {body.id} is still {body.state}: {body.error}")
        if self.deployed is not None and not live:
            newest = next(client.deployments())
            self.find(f"{self.deployed} was deployed and is {newest.state}: {newest.error}")


def _digests(folder: Path) -> dict[str, str]:
    """Return the digests of all tensors of a folder by name."""
    digests: dict[str, str] = CheckpointFolder.read(folder).announcement["digests"]
    return digests
