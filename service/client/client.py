"""The client library: registers checkpoints, asks for mixes, and follows how they are made.

Whatever was interrupted is simply called again: what has arrived stays, only the rest is sent.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import httpx

from assembler.mixes.waivers import Waiver
from assembler.planning.plan_data import Plan
from assembler.tables import FINAL_STATES
from engine.compression.int8_curve import Curve
from engine.gates.mix_gate import GateReport
from engine.serving.tables import DeploymentState
from registry.catalog import document_files
from registry.checkpoints.attestations import Attestation
from registry.checkpoints.checkpoint_folder import DOCUMENTS, CheckpointFolder, Source
from registry.checkpoints.exports import OnBytes, new_folder
from registry.database.tables import ProjectionState, VersionState
from registry.errors import Conflict, InvalidInput, NotFound, Unavailable
from registry.names import parse_ref
from service.client.connection import API, MAX_ATTEMPTS, Connection, pause
from service.schemas.checkpoints import FilesBody, MissingBlob, SigningKeyBody
from service.schemas.deployments import DeploymentBody
from service.schemas.experts import (
    ExpertBody,
    ExpertWithVersions,
    Suggestion,
    VersionBody,
    VersionUploadBody,
)
from service.schemas.families import FamilyBody, FamilyUploadBody, PolicyBody, ProjectionBody
from service.schemas.mixes import EventBody, MixBody, PresetBody

POLL_SECONDS = 0.5
Downloadable = Literal["mixes", "experts"]
Change = Literal["extend", "remove", "replace"]
DEPLOYING = (DeploymentState.REQUESTED, DeploymentState.STARTING)
SERVING = (*DEPLOYING, DeploymentState.READY)


@dataclass(frozen=True)
class Transfer:
    """How far an upload is: bytes that were sent, of those that have to be."""

    num_sent: int
    num_bytes: int


OnTransfer = Callable[[Transfer], None]
OnEvent = Callable[[EventBody], None]


def _unheard(transfer: Transfer) -> None:
    pass


class Client:
    """A connection to a service at `address`, `http://host:port`, with the key of one user.

    Methods raise the errors of `registry.errors` that the service raised, and Unavailable when it
    stays away.
    """

    def __init__(self, address: str, *, key: str) -> None:
        self._connection = Connection(address, key=key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def register_family(
        self,
        folder: Path,
        *,
        name: str,
        license: str,
        description: str = "",
        on_transfer: OnTransfer = _unheard,
    ) -> FamilyBody:
        """Send a seed: its headers first, then the bytes that are not there yet."""
        checkpoint = CheckpointFolder.read(folder)
        about = {"name": name, "license": license, "description": description}
        begun = self._connection.post("/families", checkpoint.announcement | about)
        upload = FamilyUploadBody.model_validate(begun)
        self._send_all(upload.missing, checkpoint.sources, on_transfer)
        return FamilyBody.model_validate(self._connection.post(f"/families/{name}/complete"))

    def register_expert(
        self,
        folder: Path,
        *,
        name: str,
        family: str,
        license: str,
        description: str = "",
        documents: Path | None = None,
        on_transfer: OnTransfer = _unheard,
    ) -> VersionBody:
        """Send a version of an expert, with documents that show its domain.

        `documents` is a file of JSON Lines (`.jsonl`), or a plain text, which is cut into
        documents; if not given, `documents.jsonl` in the folder. The folder stays as it is. The
        same checkpoint and documents again find the same version, and send nothing. Raises
        InvalidInput for documents that are missing or do not suffice, and for a folder that holds
        no checkpoint.
        """
        if documents is None and not (folder / DOCUMENTS).exists():
            raise InvalidInput(f"{folder} has no {DOCUMENTS}; name a file of documents, or a text")
        about = {"family": family, "license": license, "description": description}
        versions = f"/experts/{name}/versions"
        with document_files.as_json_lines(documents or folder / DOCUMENTS) as json_lines:
            checkpoint = CheckpointFolder.read(folder, documents=json_lines)
            announcement = checkpoint.announcement | about | {"documents": checkpoint.documents}
            begun = self._connection.post(versions, announcement)
            upload = VersionUploadBody.model_validate(begun)
            self._send_all(upload.missing, checkpoint.sources, on_transfer)
        completed = self._connection.post(f"{versions}/{upload.version}/complete")
        return VersionBody.model_validate(completed)

    def wait_for_embedding(self, version: VersionBody) -> VersionBody:
        """Until its domain is known, which a mix needs; seconds after it was completed."""
        path = f"/experts/{version.expert}/versions/{version.version}"
        while not version.embedded:
            time.sleep(POLL_SECONDS)
            version = VersionBody.model_validate(self._connection.get(path))
        return version

    def suggest(self, text: str, *, family: str, limit: int = 3) -> list[Suggestion]:
        """The experts whose domains are nearest to a text, nearest first."""
        body = {"text": text, "family": family, "limit": limit}
        page = self._connection.post("/experts:suggest", body)
        return [Suggestion.model_validate(entry) for entry in page["data"]]

    def request_projection(
        self,
        family: str,
        *,
        documents: Path | None = None,
        experts: Sequence[str] = (),
        training: dict[str, Any] | None = None,
    ) -> ProjectionBody:
        """Have the family's projection trained on documents of many domains, JSON Lines: those of
        its newest one if none are given. The documents of `experts` join them."""
        body: dict[str, Any] = {"experts": list(experts), "training": training or {}}
        if documents is not None:
            body["documents"] = self._send_documents(documents)
        asked = self._connection.post(f"/families/{family}/projections", body)
        return ProjectionBody.model_validate(asked)

    def policy(self, family: str) -> PolicyBody:
        """What the family's new mixes are gated by. Raises NotFound for the family."""
        return PolicyBody.model_validate(self._connection.get(f"/families/{family}/policy"))

    def set_policy(self, family: str, changes: dict[str, Any]) -> PolicyBody:
        """Give the family the default policy with these changes. Raises InvalidInput, NotFound."""
        answer = self._connection.put(f"/families/{family}/policy", changes)
        return PolicyBody.model_validate(answer)

    def wait_for_projection(self, projection: ProjectionBody) -> ProjectionBody:
        """Until it is ready, or has failed."""
        path = f"/families/{projection.family}/projections/{projection.number}"
        while projection.state not in (ProjectionState.READY, ProjectionState.FAILED):
            time.sleep(POLL_SECONDS)
            projection = ProjectionBody.model_validate(self._connection.get(path))
        return projection

    def presets(self) -> list[PresetBody]:
        """Recipes that have a name, which a request may take and change."""
        page = self._connection.get("/presets")
        return [PresetBody.model_validate(entry) for entry in page["data"]]

    def request_mix(self, *, idempotency_key: str | None = None, **request: Any) -> MixBody:
        """Ask for a mix; `request` has the fields of `mix_requests.MixRequest`.

        Raises InvalidInput with all that is wrong, which are the problems that `plan_mix` tells.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return MixBody.model_validate(self._connection.post("/mixes", request, headers=headers))

    def plan_mix(self, **request: Any) -> Plan:
        """What the same words to `request_mix` would mean; nothing is made."""
        return Plan.model_validate(self._connection.post("/mixes:plan", request))

    def revise_mix(self, mix: MixBody, change: Change, **request: Any) -> MixBody:
        """Have a finished mix changed; `request` has the fields of `mix_requests.ExtensionRequest`,
        `RemovalRequest` or `ReplacementRequest`. Raises as `request_mix`, and Conflict when the mix
        is not finished."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        answer = self._connection.post(f"{_path(mix)}/{change}", request, headers=headers)
        return MixBody.model_validate(answer)

    def plan_revision(self, mix: MixBody, change: Change, **request: Any) -> Plan:
        """What the same words to `revise_mix` would mean; nothing is made."""
        return Plan.model_validate(self._connection.post(f"{_path(mix)}/{change}:plan", request))

    def mix(self, ref: str) -> MixBody:
        """The version that `name@number` names, or the newest of `name`."""
        name, _, number = ref.partition("@")
        path = f"/mixes/{name}/versions/{number}" if number else f"/mixes/{name}"
        return MixBody.model_validate(self._connection.get(path))

    def cancel_mix(self, mix: MixBody) -> MixBody:
        return MixBody.model_validate(self._connection.post(f"{_path(mix)}/cancel"))

    def wait_for_mix(self, mix: MixBody, *, on_event: OnEvent | None = None) -> MixBody:
        """Follow a mix until it has succeeded, failed or been cancelled."""
        for event in self.events(mix):
            if on_event is not None:
                on_event(event)
        return self.mix(mix.ref)

    def events(self, mix: MixBody) -> Iterator[EventBody]:
        """The story of a mix from beginning to end; it goes on where a connection was cut."""
        last_id, num_failures, over = 0, 0, False
        while not over:
            # Asked before the events are read: what comes before the end is then never missed.
            over = self.mix(mix.ref).state in FINAL_STATES
            try:
                for event in self._connection.events(f"{_path(mix)}/events", last_id=last_id):
                    last_id, num_failures = event.id, 0
                    yield event
            except (httpx.TransportError, Unavailable) as error:
                num_failures, over = num_failures + 1, False
                if num_failures == MAX_ATTEMPTS:
                    raise Unavailable(f"the service stays away: {error}") from error
                pause(num_failures)

    def experts(self) -> Iterator[ExpertBody]:
        """All of them, by name."""
        page: dict[str, Any] = {"has_more": True}
        after: dict[str, str] = {}
        while page["has_more"]:
            page = self._connection.get("/experts", limit=100, **after)
            bodies = [ExpertBody.model_validate(entry) for entry in page["data"]]
            yield from bodies
            after = {"after": bodies[-1].id} if bodies else {}

    def expert_version(self, ref: str) -> VersionBody:
        """The version that `name@number` names, or the newest of `name` that has arrived."""
        name, number = parse_ref(ref)
        if number is not None:
            path = f"/experts/{name}/versions/{number}"
            return VersionBody.model_validate(self._connection.get(path))
        expert = ExpertWithVersions.model_validate(self._connection.get(f"/experts/{name}"))
        arrived = [v for v in expert.versions if v.state is not VersionState.UPLOADING]
        if not arrived:
            raise NotFound(f"expert {name!r} has no version that has arrived")
        return arrived[0]

    def mixes(self, *, limit: int = 50) -> list[MixBody]:
        """The newest versions of all mixes."""
        page = self._connection.get("/mixes", limit=limit)
        return [MixBody.model_validate(entry) for entry in page["data"]]

    def files(self, ref: str, *, of: Downloadable = "mixes") -> FilesBody:
        """What can be downloaded of a version, `name@number`, or the newest of `name`."""
        return FilesBody.model_validate(self._connection.get(self._files_path(ref, of)))

    def download(
        self,
        ref: str,
        folder: Path,
        *,
        of: Downloadable = "mixes",
        on_bytes: OnBytes = lambda _: None,
    ) -> None:
        """Fetch a version as a new Hugging Face folder. Raises Conflict when `folder` exists."""
        path = self._files_path(ref, of)
        files = FilesBody.model_validate(self._connection.get(path)).data
        with new_folder(folder, num_bytes=sum(file.size for file in files)) as incoming:
            for file in files:
                # The name comes from a server; it must not lead out of the folder.
                with (incoming / Path(file.name).name).open("wb") as target:
                    source = f"{path}/{file.name}"
                    self._connection.fetch(source, target, num_bytes=file.size, on_bytes=on_bytes)

    def deployments(self, *, limit: int = 100) -> list[DeploymentBody]:
        """Newest first."""
        page = self._connection.get("/deployments", limit=limit)
        return [DeploymentBody.model_validate(entry) for entry in page["data"]]

    def deploy(self, mix: MixBody, *, model: str | None = None) -> DeploymentBody:
        """Have a published version served under its own name, or as `model`.

        Raises Conflict where it is not published.
        """
        if mix.artifact is None:
            raise Conflict(f"{mix.ref} is not published: it is {mix.state}")
        body = {"artifact": mix.artifact, "model": model or mix.name}
        return DeploymentBody.model_validate(self._connection.post("/deployments", body))

    def undeploy(self, model: str) -> None:
        """End whatever serves a model name, or is about to. Raises NotFound where nothing does."""
        live = [
            body for body in self.deployments() if body.model == model and body.state in SERVING
        ]
        if not live:
            raise NotFound(f"no model {model!r} is deployed")
        for body in live:
            self._connection.delete(f"/deployments/{body.id}")

    def gate_report(self, mix: MixBody) -> GateReport:
        return GateReport.model_validate(self._connection.get(f"{_path(mix)}/gate-report"))

    def compression(self, mix: MixBody) -> Curve:
        """The sizes that a compressed mix was tried in. Raises NotFound for another."""
        return Curve.model_validate(self._connection.get(f"{_path(mix)}/compression"))

    def provenance(self, mix: MixBody) -> dict[str, Any]:
        """What a published mix can be made again from."""
        content: dict[str, Any] = self._connection.get(f"{_path(mix)}/provenance")
        return content

    def override(self, mix: MixBody, *, scope: Sequence[Waiver], reason: str) -> MixBody:
        """Have a mix published that its gate has refused. Raises Conflict, InvalidInput."""
        body = {"scope": [waiver.model_dump() for waiver in scope], "reason": reason}
        return MixBody.model_validate(self._connection.post(f"{_path(mix)}/override", body))

    def attestation(self, mix: MixBody) -> Attestation:
        """What the service says of a published mix, signed. Raises NotFound of an unsigned one."""
        return Attestation.model_validate(self._connection.get(f"{_path(mix)}/attestation"))

    def signing_key(self) -> str:
        """The public key that the service signs with, in hexadecimal."""
        body = SigningKeyBody.model_validate(self._connection.get("/signing-key"))
        return body.public_key

    def wait_for_deployment(self, model: str) -> DeploymentBody:
        """Until the newest deployment of a model name answers, or has ended."""
        while True:
            newest = next((body for body in self.deployments() if body.model == model), None)
            if newest is None:
                raise NotFound(f"no model {model!r} is deployed")
            if newest.state not in DEPLOYING:
                return newest
            time.sleep(POLL_SECONDS)

    def _send_documents(self, path: Path) -> str:
        source = Source.whole(path)
        digest = source.digest()
        if not self._connection.has_blob(digest):
            blob = MissingBlob(digest=digest, size=source.num_bytes, url=f"{API}/blobs/{digest}")
            self._send_all([blob], {digest: source}, _unheard)
        return digest

    def _files_path(self, ref: str, of: Downloadable) -> str:
        name, number = parse_ref(ref)
        if number is None:
            number = self.mix(ref).version if of == "mixes" else self.expert_version(ref).version
        return f"/{of}/{name}/versions/{number}/files"

    def _send_all(
        self, missing: Sequence[MissingBlob], sources: dict[str, Source], on_transfer: OnTransfer
    ) -> None:
        num_bytes = sum(sources[blob.digest].num_bytes for blob in missing)
        before = 0
        for blob in missing:
            source = sources[blob.digest]

            def on_sent(num_sent: int, before: int = before) -> None:
                on_transfer(Transfer(before + num_sent, num_bytes))

            self._connection.send(blob, source, on_sent=on_sent)
            before += source.num_bytes


def _path(mix: MixBody) -> str:
    return f"/mixes/{mix.name}/versions/{mix.version}"
