"""The events of a mix as server-sent events: data in JSON, resumable with `Last-Event-ID`."""

from collections.abc import AsyncIterator, Sequence

import anyio
from fastapi import Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from assembler.mixes import job_events, mix_state
from registry.database import db
from service.schemas.mixes import EventBody

POLL_SECONDS = 0.3
PING_SECONDS = 15


def response(version_id: int, job_id: str, *, last_id: int) -> Response:
    """Stream the events after `last_id`, until the mix ends."""
    events, is_over = _read(version_id, job_id, last_id)
    if is_over and not events:
        # This tells a browser's EventSource not to connect again.
        return Response(status_code=204)
    return EventSourceResponse(_stream(version_id, job_id, last_id), ping=PING_SECONDS)


async def _stream(version_id: int, job_id: str, last_id: int) -> AsyncIterator[ServerSentEvent]:
    while True:
        events, is_over = await run_in_threadpool(_read, version_id, job_id, last_id)
        for event in events:
            yield ServerSentEvent(event.model_dump_json(), id=str(event.id))
            last_id = event.id
        if is_over and not events:
            return
        if not events:
            await anyio.sleep(POLL_SECONDS)


def _read(version_id: int, job_id: str, last_id: int) -> tuple[Sequence[EventBody], bool]:
    """Return the events after `last_id`, and whether the mix had ended before they were read."""
    with db.transaction() as session:
        is_over = mix_state.is_over(session, version_id)
        rows = job_events.events_after(session, job_id, last_id=last_id)
        return [EventBody.of(row) for row in rows], is_over
