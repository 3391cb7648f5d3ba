"""Users of the service: each does one thing again and again, and notes what was acknowledged.

An error that the service or the client explains is a refusal, and is counted. Anything else is a
finding.
"""

import random
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import httpx
import openai

from assembler.tables import FINAL_STATES, MixState
from registry.database.tables import VersionState
from registry.errors import InvalidInput, NexusmixError
from service.client.client import Client
from service.schemas.mixes import MixBody
from tests import tiny
from tests.assembler.workers import LENIENT
from tests.benchmarks.chaos.installation import FAMILY
from tests.benchmarks.chaos.ledger import Ledger

MODEL = "chaos"
MAX_UNFINISHED = 2
# How often a mix is extended rather than a new one requested, if it can be.
EXTENDING = 0.8
# Experts that are asked for their state before an extension.
MAX_JOINING = 5
# A request or a stream that has no end after this is hung.
HUNG_SECONDS = 120.0
BRIEF = {"tokens": 30 * 4 * 32, "batch_size": 4, "sequence_length": 32}
EXPLAINED = (NexusmixError, httpx.HTTPError, openai.OpenAIError)


class Actor(ABC):
    """One thread of work."""

    pause_seconds: ClassVar[float] = 1.0

    def __init__(self, address: str, *, key: str, ledger: Ledger, chance: random.Random) -> None:
        self.address, self.key, self.ledger, self.chance = address, key, ledger, chance
        self.outcomes: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=self.name)
        self._began: float | None = None

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def join(self, seconds: float) -> bool:
        """Wait for the present piece of work; return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with Client(self.address, key=self.key) as client:
            while not self._stopping.wait(self.pause_seconds):
                began = time.monotonic()
                try:
                    self.outcomes[self.act(client) or "done"] += 1
                except InvalidInput as error:
                    # No fault explains it: every request is right.
                    self.ledger.find(f"{self.name} is refused: {error.detail} {error.problems}")
                except EXPLAINED as error:
                    self.outcomes[type(error).__name__] += 1
                except Exception:
                    # Every error that no fault explains is a finding.
                    self.ledger.find(f"{self.name}: {traceback.format_exc(limit=-3)}")
                if time.monotonic() - began > HUNG_SECONDS and self.is_bounded:
                    self.ledger.find(f"{self.name} took {time.monotonic() - began:.0f} s")

    @property
    def is_bounded(self) -> bool:
        """Whether a piece of work must end within HUNG_SECONDS."""
        return True

    @abstractmethod
    def act(self, client: Client) -> str | None:
        """Do one piece of work; return a word for its outcome."""


class Uploader(Actor):
    """Registers experts until each is acknowledged; a few at a time, since each is embedded too."""

    pause_seconds = 20.0

    def __init__(self, *arguments: Any, folder: Path, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._folder, self._number = folder, 3

    def act(self, client: Client) -> str:
        newest = [client.expert_version(ref) for ref in [*self.ledger.experts][-MAX_UNFINISHED:]]
        if len(newest) == MAX_UNFINISHED and not any(version.embedded for version in newest):
            return "waits"
        source = self._folder / f"source-{self._number}"
        if not source.exists():
            tiny.write_checkpoint(source, expert=self._number)
        version = client.register_expert(
            source, name=f"expert-{self._number}", family=FAMILY, license="MIT"
        )
        self.ledger.experts[f"{version.expert}@{version.version}"] = source
        self._number += 1
        return "acknowledged"

    @property
    def is_bounded(self) -> bool:
        return False  # the client sends again for as long as it takes


class Mixer(Actor):
    """Requests mixes and extensions, and repeats a request until it is acknowledged."""

    pause_seconds = 2.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._number = 0

    def act(self, client: Client) -> str:
        known = [client.mix(ref) for ref in self.ledger.mixes]
        if sum(mix.state not in FINAL_STATES for mix in known) >= MAX_UNFINISHED:
            return "waits"
        ready = [mix for mix in known if mix.state is MixState.SUCCEEDED]
        if ready and self.chance.random() < EXTENDING:
            base = self.chance.choice(ready)
            if joining := self._joining(client, base):
                mix = client.revise_mix(
                    base, "extend", expert=self.chance.choice(joining), finetune=BRIEF
                )
                self.ledger.mixes.append(mix.ref)
                return "extended"
        mix = client.request_mix(
            idempotency_key=f"mix-{self._number}",
            name=f"mix-{self._number}",
            family=FAMILY,
            experts=["expert-1", "expert-2"],
            finetune=BRIEF | {"seed": self._number},
            gates=LENIENT.model_dump(mode="json"),
        )
        self.ledger.mixes.append(mix.ref)
        self._number += 1
        return "requested"

    def _joining(self, client: Client, base: MixBody) -> list[str]:
        """Return the newest experts that can join a mix: acknowledged experts may be in work."""
        members = {ref.partition("@")[0] for ref in base.recipe["experts"]}
        others = [ref for ref in self.ledger.experts if ref.partition("@")[0] not in members]
        versions = [client.expert_version(ref) for ref in others[-MAX_JOINING:]]
        return [v.ref for v in versions if v.state is VersionState.READY and v.embedded]


class Deployer(Actor):
    """Serves the newest mix that has succeeded."""

    pause_seconds = 5.0

    def act(self, client: Client) -> str:
        for ref in reversed(self.ledger.mixes):
            mix = client.mix(ref)
            if mix.artifact is not None and mix.state is MixState.SUCCEEDED:
                if ref == self.ledger.deployed:
                    return "waits"
                client.deploy(mix, model=MODEL)
                self.ledger.deployed = ref
                return "acknowledged"
        return "waits"


class Follower(Actor):
    """Follows the events of a mix from beginning to end."""

    @property
    def is_bounded(self) -> bool:
        return False  # it ends with its mix

    def act(self, client: Client) -> str:
        if not self.ledger.mixes:
            return "waits"
        mix = client.mix(self.chance.choice(self.ledger.mixes[-3:]))
        seen = [event.id for event in client.events(mix)]
        if seen != sorted(set(seen)):
            self.ledger.find(f"events of {mix.ref} came twice or out of order")
        return "followed"


class Chatter(Actor):
    """Asks the model, half of the time with a stream; every answer and every stream must end."""

    def act(self, client: Client) -> str:
        if self.ledger.deployed is None:
            return "waits"
        with openai.OpenAI(
            base_url=f"{self.address}/v1", api_key=self.key, max_retries=0, timeout=HUNG_SECONDS
        ) as asking:
            is_stream = self.chance.random() < 0.5
            try:
                answer = asking.completions.create(
                    model=MODEL, prompt="one two", max_tokens=48, stream=is_stream
                )
                if is_stream:
                    for _ in answer:
                        pass
            except openai.APIConnectionError:
                raise
            except openai.APIStatusError as error:
                retry_after = error.response.headers.get("retry-after")
                self.ledger.refuse(error.status_code, error.code, retry_after=retry_after)
                raise
            except openai.APIError as error:
                self.ledger.refuse(None, error.code, retry_after=None)
                raise
        return "streamed" if is_stream else "answered"
