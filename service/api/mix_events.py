"""The story of a mix as server-sent events: unnamed, data in JSON, resumable by `Last-Event-ID`."""

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
    events, over = _read(version_id, job_id, last_id)
    if over and not events:
        # What tells a browser's EventSource to stop coming back.
        return Response(status_code=204)
    return EventSourceResponse(_story(version_id, job_id, last_id), ping=PING_SECONDS)


async def _story(version_id: int, job_id: str, last_id: int) -> AsyncIterator[ServerSentEvent]:
    while True:
        events, over = await run_in_threadpool(_read, version_id, job_id, last_id)
        for event in events:
            yield ServerSentEvent(event.model_dump_json(), id=str(event.id))
            last_id = event.id
        if over and not events:
            return
        if not events:
            await anyio.sleep(POLL_SECONDS)


def _read(version_id: int, job_id: str, last_id: int) -> tuple[Sequence[EventBody], bool]:
    """What came after `last_id`, and whether the mix was over before that was read."""
    with db.transaction() as session:
        over = mix_state.is_over(session, version_id)
        rows = job_events.events_after(session, job_id, last_id=last_id)
        return [EventBody.of(row) for row in rows], over
