"""`Idempotency-Key` (IETF draft 07): a repeated request gets the answer of the first one.

The answer is stored in the same transaction as what the request created, so both exist or neither.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from registry.checkpoints.manifests import json_digest
from registry.errors import InvalidInput, Problem
from service.tables import IdempotentRequest
from service.web.auth import Writer

LIFETIME = timedelta(hours=24)


@dataclass(frozen=True)
class Repeatable:
    """A request that may be repeated: API key, path, and the `Idempotency-Key` if it has one."""

    api_key_id: int
    path: str
    key: str | None

    def once(
        self, session: Session, *, body: Any, status: int, make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return the result of `make`, or the stored result if the same request came before.

        Raises InvalidInput when the key was used with another body.
        """
        if self.key is None:
            return make()
        # A second request waits here until the first has committed or failed.
        name = f"{self.api_key_id} {self.path} {self.key}"
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))
        if (earlier := self.earlier(session, body=body)) is not None:
            return earlier
        response = make()
        session.add(
            IdempotentRequest(
                api_key_id=self.api_key_id,
                path=self.path,
                key=self.key,
                body_digest=json_digest(body),
                status=status,
                response=response,
            )
        )
        session.flush()
        return response

    def earlier(self, session: Session, *, body: Any) -> dict[str, Any] | None:
        """Return the answer that the same request got before, None if there is none.

        A route asks this before it reads bytes for `once`, whose `make` must not end the
        transaction. Raises InvalidInput when the key was used with another body.
        """
        row = None if self.key is None else self._find(session)
        if row is None:
            return None
        if row.body_digest != json_digest(body):
            raise InvalidInput(
                "this Idempotency-Key was used before with another body; use a new key",
                problems=(Problem("/header/idempotency-key", "belongs to another request"),),
            )
        return row.response

    def _find(self, session: Session) -> IdempotentRequest | None:
        same_request = (
            IdempotentRequest.api_key_id == self.api_key_id,
            IdempotentRequest.path == self.path,
            IdempotentRequest.key == self.key,
        )
        expired = IdempotentRequest.created_at < datetime.now(UTC) - LIFETIME
        session.execute(delete(IdempotentRequest).where(*same_request, expired))
        return session.scalar(select(IdempotentRequest).where(*same_request))


def _repeatable(
    request: Request,
    caller: Writer,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            description="A word of your choice. The same word again gives the same answer, and"
            " nothing is done twice.",
        ),
    ] = None,
) -> Repeatable:
    return Repeatable(caller.key_id, request.url.path, idempotency_key)


OncePerKey = Annotated[Repeatable, Depends(_repeatable)]
