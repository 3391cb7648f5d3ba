"""The client library: registers checkpoints, requests mixes, and follows how they are made.

Call a method again after an interruption: the service keeps what it has, and only the rest is sent.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import httpx

from assembler.planning.plan_data import Plan
from assembler.tables import FINAL_STATES
from registry.catalog import document_files
from registry.checkpoints.exports import OnBytes
from registry.errors import Conflict, Unavailable
from registry.names import check_name, parse_ref
from service.client import transfers
from service.client.connection import MAX_ATTEMPTS, Connection, pause
from service.client.copies import Copies
from service.client.deployments import Deployments
from service.client.mix_records import MixRecords, mix_path
from service.client.registrations import Registrations
from service.client.uploads import Uploads
from service.schemas.checkpoints import FilesBody
from service.schemas.experts import (
    ExpertBody,
    ExpertWithVersions,
    Suggestion,
    VersionBody,
)
from service.schemas.families import (
    FamilyBody,
    PolicyBody,
    ProjectionBody,
)
from service.schemas.mixes import EventBody, MixBody, PresetBody

POLL_SECONDS = 0.5
Downloadable = Literal["mixes", "experts", "adapters"]
Change = Literal["extend", "remove", "replace"]
OnEvent = Callable[[EventBody], None]


class Client(Uploads, Copies, MixRecords, Registrations, Deployments):
    """A connection to the service at `address`, `http://host:port`, with an API key.

    Every method raises the error of `registry.errors` that the service raised, and Unavailable when
    the service does not answer. A reference `ref` is `name@number`, or `name` for the newest
    published version of a mix and the newest ready version of an expert.
    """

    def __init__(self, address: str, *, key: str) -> None:
        self._connection = Connection(address, key=key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def families(self) -> Iterator[FamilyBody]:
        """Yield all families, by name."""
        return map(FamilyBody.model_validate, self._connection.entries("/families"))

    def suggest(self, text: str, *, family: str, limit: int = 3) -> list[Suggestion]:
        """Return the experts whose domains are nearest to a text, nearest first."""
        body = {"text": text, "family": family, "limit": limit}
        page = self._connection.post("/experts:suggest", body)
        return [Suggestion.model_validate(entry) for entry in page["data"]]

    def request_projection(
        self,
        family: str,
        *,
        documents: Path | None = None,
        experts: Sequence[str] = (),
        all_experts: bool = False,
        training: dict[str, Any] | None = None,
    ) -> ProjectionBody:
        """Have a projection of the family trained.

        It is trained on `documents`, JSON Lines of many domains, or else on the documents of the
        newest projection; the documents of `experts`, or of `all_experts` of the family, are added.
        Raises InvalidInput when a projection cannot learn from them.
        """
        check_name(family, at="/family")
        body: dict[str, Any] = {"experts": list(experts), "training": training or {}}
        body["all_experts"] = all_experts
        if documents is not None:
            document_files.check_projection_file(documents)
            body["documents"] = transfers.send_file(self._connection, documents)
        answer = self._connection.post(f"/families/{family}/projections", body)
        return ProjectionBody.model_validate(answer)

    def projections(self, family: str) -> list[ProjectionBody]:
        """Return the projections of a family, newest first. Raises NotFound."""
        check_name(family, at="/family")
        page = self._connection.get(f"/families/{family}/projections")
        return [ProjectionBody.model_validate(entry) for entry in page["data"]]

    def policy(self, family: str) -> PolicyBody:
        """Return the policy that new mixes of the family are gated by. Raises NotFound."""
        check_name(family, at="/family")
        return PolicyBody.model_validate(self._connection.get(f"/families/{family}/policy"))

    def set_policy(self, family: str, changes: dict[str, Any]) -> PolicyBody:
        """Give the family the default policy with these changes. Raises InvalidInput, NotFound."""
        check_name(family, at="/family")
        answer = self._connection.put(f"/families/{family}/policy", changes)
        return PolicyBody.model_validate(answer)

    def presets(self) -> list[PresetBody]:
        """Return the recipes that a request can start from."""
        page = self._connection.get("/presets")
        return [PresetBody.model_validate(entry) for entry in page["data"]]

    def request_mix(self, *, idempotency_key: str | None = None, **request: Any) -> MixBody:
        """Request a mix; `request` has the fields of `MixRequest` in `service.web.mix_requests`.

        Raises InvalidInput with every problem, the same ones that `plan_mix` returns.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return MixBody.model_validate(self._connection.post("/mixes", request, headers=headers))

    def plan_mix(self, **request: Any) -> Plan:
        """Return what `request_mix` would do with the same fields, without doing it."""
        return Plan.model_validate(self._connection.post("/mixes:plan", request))

    def revise_mix(self, mix: MixBody, change: Change, **request: Any) -> MixBody:
        """Request a changed version of a finished mix.

        `request` has the fields of `ExtensionRequest`, `RemovalRequest` or `ReplacementRequest` in
        `service.web.mix_requests`. Raises InvalidInput with every problem, and Conflict when the
        mix is not finished.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        answer = self._connection.post(f"{mix_path(mix)}/{change}", request, headers=headers)
        return MixBody.model_validate(answer)

    def plan_revision(self, mix: MixBody, change: Change, **request: Any) -> Plan:
        """Return what `revise_mix` would do with the same fields, without doing it."""
        return Plan.model_validate(self._connection.post(f"{mix_path(mix)}/{change}:plan", request))

    def mix(self, ref: str) -> MixBody:
        """Return the version of a mix that `ref` means. Raises NotFound, and Conflict if `name` has
        no published version."""
        name, number = parse_ref(ref)
        path = f"/mixes/{name}" if number is None else f"/mixes/{name}/versions/{number}"
        return MixBody.model_validate(self._connection.get(path))

    def mixes(self) -> Iterator[MixBody]:
        """Yield the versions of all mixes, newest first."""
        return map(MixBody.model_validate, self._connection.entries("/mixes"))

    def cancel_mix(self, mix: MixBody) -> MixBody:
        """Stop a mix. Cancelling again changes nothing."""
        return MixBody.model_validate(self._connection.post(f"{mix_path(mix)}/cancel"))

    def retry_mix(self, mix: MixBody) -> MixBody:
        """Go on with a mix that failed, was cancelled or is parked, from its last good step.

        Raises Conflict when it has succeeded or its gate refused it.
        """
        return MixBody.model_validate(self._connection.post(f"{mix_path(mix)}/retry"))

    def wait_for_mix(self, mix: MixBody, *, on_event: OnEvent | None = None) -> MixBody:
        """Follow a mix until it has succeeded, failed, been cancelled or been parked."""
        for event in self.events(mix):
            if on_event is not None:
                on_event(event)
        return self.mix(mix.ref)

    def events(self, mix: MixBody) -> Iterator[EventBody]:
        """Yield the events of a mix from beginning to end, also over a line that breaks."""
        last_id, num_failures, is_over = 0, 0, False
        while not is_over:
            # Ask for the state before reading events, so that no event before the end is missed.
            is_over = self.mix(mix.ref).state in FINAL_STATES
            try:
                for event in self._connection.events(f"{mix_path(mix)}/events", last_id=last_id):
                    last_id, num_failures = event.id, 0
                    yield event
            except (httpx.TransportError, Unavailable) as error:
                num_failures, is_over = num_failures + 1, False
                if num_failures == MAX_ATTEMPTS:
                    raise Unavailable(f"the service does not answer: {error}") from error
                pause(num_failures)

    def experts(self) -> Iterator[ExpertBody]:
        """Yield all experts, by name."""
        return map(ExpertBody.model_validate, self._connection.entries("/experts"))

    def expert(self, name: str) -> ExpertWithVersions:
        """Return an expert with its versions. Raises NotFound."""
        check_name(name, at="/expert")
        return ExpertWithVersions.model_validate(self._connection.get(f"/experts/{name}"))

    def expert_version(self, ref: str) -> VersionBody:
        """Return the version of an expert that `ref` means. Raises NotFound, and Conflict if `name`
        has no ready version."""
        name, number = parse_ref(ref)
        if number is not None:
            path = f"/experts/{name}/versions/{number}"
            return VersionBody.model_validate(self._connection.get(path))
        newest = self.expert(name).newest
        if newest is None:
            raise Conflict(f"expert {name!r} has no version that is ready")
        return newest

    def files(self, ref: str, *, of: Downloadable = "mixes") -> FilesBody:
        """Return the files of a mix, of an expert, or of the adapter that one was merged from."""
        return FilesBody.model_validate(self._connection.get(self._files_path(ref, of)))

    def download(
        self,
        ref: str,
        folder: Path,
        *,
        of: Downloadable = "mixes",
        on_bytes: OnBytes = lambda _: None,
    ) -> None:
        """Fetch a mix or an expert as a new Hugging Face folder, or an adapter as one of peft.

        Raises Conflict when `folder` exists, and InvalidCheckpoint if a file arrives with another
        digest than the service names.
        """
        transfers.fetch_files(
            self._connection, self._files_path(ref, of), folder, on_bytes=on_bytes
        )

    def _files_path(self, ref: str, of: Downloadable) -> str:
        name, number = parse_ref(ref)
        if number is None:
            number = self.mix(ref).version if of == "mixes" else self.expert_version(ref).version
        if of == "adapters":
            return f"/experts/{name}/versions/{number}/adapter"
        return f"/{of}/{name}/versions/{number}/files"
