"""The events of a mix as server-sent events: data in JSON, resumable with `Last-Event-ID`."""

from collections.abc import AsyncIterator, Sequence
from functools import partial

from fastapi import Response
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse, ServerSentEvent

from assembler.mixes import job_events, mix_state
from registry.database import db
from service.schemas.mixes import EventBody
from service.web.threads import FOLLOWING, Shared

POLL_SECONDS = 0.3
PING_SECONDS = 15

# All who follow a mix read its events once.
_polls: Shared[tuple[Sequence[EventBody], bool]] = Shared(FOLLOWING, seconds=POLL_SECONDS)


def response(session: Session, version_id: int, job_id: str, *, last_id: int) -> Response:
    """Stream the events after `last_id`, until the mix ends.

    `session` is that of the request, which must not need a second connection.
    """
    events, is_over = _read(session, version_id, job_id, last_id)
    if is_over and not events:
        # This tells a browser's EventSource not to connect again.
        return Response(status_code=204)
    return EventSourceResponse(_stream(version_id, job_id, last_id), ping=PING_SECONDS)


async def _stream(version_id: int, job_id: str, last_id: int) -> AsyncIterator[ServerSentEvent]:
    while True:
        events, is_over = await _polls.run(
            (version_id, last_id), partial(_read_now, version_id, job_id, last_id)
        )
        for event in events:
            yield ServerSentEvent(event.model_dump_json(), id=str(event.id))
            last_id = event.id
        if is_over and not events:
            return
        if not events:
            await _polls.next_period()


def _read_now(version_id: int, job_id: str, last_id: int) -> tuple[Sequence[EventBody], bool]:
    with db.transaction() as session:
        return _read(session, version_id, job_id, last_id)


def _read(
    session: Session, version_id: int, job_id: str, last_id: int
) -> tuple[Sequence[EventBody], bool]:
    """Return the events after `last_id`, and whether the mix had ended before they were read."""
    is_over = mix_state.is_over(session, version_id)
    rows = job_events.events_after(session, job_id, last_id=last_id)
    return [EventBody.of(row) for row in rows], is_over
