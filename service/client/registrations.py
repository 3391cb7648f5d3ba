"""The part of the client that follows registrations and projections to their end, or retries them.

Every wait ends: when the thing is ready, with its reason when it failed, and with a sentence when
no worker runs or the time is over.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from registry.database.tables import PENDING_STATES, ProjectionState, VersionState
from registry.errors import StepFailed, Unavailable
from registry.names import check_name
from service.client.connection import Connection
from service.schemas.experts import VersionBody
from service.schemas.families import FamilyBody, ProjectionBody

POLL_SECONDS = 0.2
# How often a wait looks whether a worker runs, and how long none may run: workers restart.
LOOK_SECONDS = 5.0
GONE_SECONDS = 30.0
# Checks and embeddings take seconds to minutes, and wait for those before them.
REGISTRATION_SECONDS = 3600.0
# A projection also waits for the finetunes before it.
PROJECTION_SECONDS = 24 * 3600.0

Body = TypeVar("Body", VersionBody, FamilyBody, ProjectionBody)
# Takes the sentence that describes a wait.
OnWait = Callable[[str], None]


class Registrations:
    """What a client does with registered families, experts and projections."""

    _connection: Connection

    def wait_for_family(
        self,
        family: FamilyBody,
        *,
        seconds: float = REGISTRATION_SECONDS,
        on_wait: OnWait = lambda _: None,
    ) -> FamilyBody:
        """Wait until the seed of a family is checked; experts need it.

        Raises StepFailed with the reason when it is refused, and Unavailable when no worker runs or
        `seconds` are over.
        """
        path = f"/families/{family.name}"
        return self._wait(family, path, f"family {family.name!r}", seconds, on_wait)

    def wait_for_embedding(
        self,
        version: VersionBody,
        *,
        seconds: float = REGISTRATION_SECONDS,
        on_wait: OnWait = lambda _: None,
    ) -> VersionBody:
        """Wait until a version of an expert is checked and its domain embedded; mixes need it.

        Raises StepFailed with the reason when it failed, and Unavailable when no worker runs or
        `seconds` are over.
        """
        path = f"/experts/{version.expert}/versions/{version.version}"
        return self._wait(version, path, version.ref, seconds, on_wait)

    def wait_for_projection(
        self,
        projection: ProjectionBody,
        *,
        seconds: float = PROJECTION_SECONDS,
        on_wait: OnWait = lambda _: None,
    ) -> ProjectionBody:
        """Wait until a projection is trained.

        Raises StepFailed with the reason when it failed, and Unavailable when no worker runs or
        `seconds` are over.
        """
        path = f"/families/{projection.family}/projections/{projection.number}"
        name = f"projection {projection.family}@{projection.number}"
        return self._wait(projection, path, name, seconds, on_wait)

    def retry_version(self, version: VersionBody) -> VersionBody:
        """Check and embed a version that failed once more. Raises Conflict while it uploads."""
        path = f"/experts/{version.expert}/versions/{version.version}/retry"
        return VersionBody.model_validate(self._connection.post(path))

    def forget_documents(self, version: VersionBody) -> VersionBody:
        """Delete the documents of a version. Raises Conflict before its domain is embedded."""
        path = f"/experts/{version.expert}/versions/{version.version}/documents"
        return VersionBody.model_validate(self._connection.delete(path))

    def retry_family(self, family: str) -> FamilyBody:
        """Check the seed of a family that failed once more. Raises Conflict while it uploads."""
        check_name(family, at="/family")
        return FamilyBody.model_validate(self._connection.post(f"/families/{family}/retry"))

    def retry_projection(self, projection: ProjectionBody) -> ProjectionBody:
        """Train a projection that failed once more."""
        path = f"/families/{projection.family}/projections/{projection.number}/retry"
        return ProjectionBody.model_validate(self._connection.post(path))

    def family(self, name: str) -> FamilyBody:
        """Return a family. Raises NotFound."""
        check_name(name, at="/family")
        return FamilyBody.model_validate(self._connection.get(f"/families/{name}"))

    def delete_family(self, name: str) -> None:
        """Delete a family that no expert uses. Raises NotFound, and Conflict with its experts."""
        check_name(name, at="/family")
        self._connection.delete(f"/families/{name}")

    def _wait(self, body: Body, path: str, name: str, seconds: float, on_wait: OnWait) -> Body:
        began = looked = seen = time.monotonic()
        while not _is_over(body):
            on_wait(f"{name} is {body.state}{_detail(body)}")
            time.sleep(POLL_SECONDS)
            body = type(body).model_validate(self._connection.get(path))
            now = time.monotonic()
            if now - looked >= LOOK_SECONDS:
                looked = now
                seen = now if self._connection.get("/workers")["running"] else seen
                if now - seen >= GONE_SECONDS:
                    raise Unavailable(
                        f"{name} is {body.state}, and no worker is running; it goes on when one"
                        " starts, as `nexusmix up` does"
                    )
            if now - began >= seconds and not _is_over(body):
                reason = f" ({body.error})" if body.error else ""
                raise Unavailable(
                    f"{name} is still {body.state} after {seconds:.0f} s{reason}; it goes on, and"
                    f" /api/v1{path} says when it has ended"
                )
        if body.state.value not in (VersionState.READY, VersionState.RETIRED):
            reason = body.error or "it was not sent completely"
            raise StepFailed(f"{name} is {body.state}: {reason}")
        return body


def _detail(body: VersionBody | FamilyBody | ProjectionBody) -> str:
    """Say why a thing has to wait, or how far it is."""
    if body.error:
        return f": {body.error}"
    if isinstance(body, VersionBody) and body.progress:
        return f": {body.progress}"
    if isinstance(body, ProjectionBody) and body.progress is not None:
        return f": {body.progress.stage}, {body.progress.percent} %"
    return ""


def _is_over(body: VersionBody | FamilyBody | ProjectionBody) -> bool:
    """Tell whether no worker has work to do on it."""
    if isinstance(body, ProjectionBody):
        return body.state in (ProjectionState.READY, ProjectionState.FAILED)
    return body.state not in PENDING_STATES
