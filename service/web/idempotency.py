"""`Idempotency-Key` (IETF draft 07): a creating request that is repeated gets its first answer.

The answer is stored in the transaction of the thing it created: there are both, or neither.
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
    """Under which name a request may be repeated: per key of the caller, and per path."""

    api_key_id: int
    path: str
    key: str | None

    def once(
        self, session: Session, *, body: Any, status: int, make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Run `make`, or return what it returned when the same request came before.

        Raises InvalidInput when the same key came with another body.
        """
        if self.key is None:
            return make()
        # A second request waits here until the first has committed or failed.
        name = f"{self.api_key_id} {self.path} {self.key}"
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))
        body_digest = json_digest(body)
        earlier = self._find(session)
        if earlier is None:
            response = make()
            session.add(
                IdempotentRequest(
                    api_key_id=self.api_key_id,
                    path=self.path,
                    key=self.key,
                    body_digest=body_digest,
                    status=status,
                    response=response,
                )
            )
            session.flush()
            return response
        if earlier.body_digest != body_digest:
            raise InvalidInput(
                "this Idempotency-Key came before, with another body; use a new key",
                problems=(Problem("/header/idempotency-key", "belongs to another request"),),
            )
        return earlier.response

    def _find(self, session: Session) -> IdempotentRequest | None:
        mine = (
            IdempotentRequest.api_key_id == self.api_key_id,
            IdempotentRequest.path == self.path,
            IdempotentRequest.key == self.key,
        )
        expired = IdempotentRequest.created_at < datetime.now(UTC) - LIFETIME
        session.execute(delete(IdempotentRequest).where(*mine, expired))
        return session.scalar(select(IdempotentRequest).where(*mine))


def _repeatable(
    request: Request,
    caller: Writer,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Repeatable:
    return Repeatable(caller.key_id, request.url.path, idempotency_key)


OncePerKey = Annotated[Repeatable, Depends(_repeatable)]
