"""The live part of a mix's page as server-sent events: the rendered part, each time it changed."""

from collections.abc import AsyncIterator

import anyio
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from assembler.mixes import mixes
from registry.blobs import blob_stores
from registry.database import db
from service.ui import mix_views
from service.ui.rendering import render

POLL_SECONDS = 0.5
PING_SECONDS = 15
# A named event: the page listens for it and hangs up, an end alone would make it come again.
SETTLED = {"event": "settled", "data": "settled"}


def follow(ref: str) -> EventSourceResponse:
    return EventSourceResponse(_parts(ref), ping=PING_SECONDS)


async def _parts(ref: str) -> AsyncIterator[dict[str, str]]:
    shown = ""
    while True:
        html, settled = await run_in_threadpool(_part, ref)
        if html != shown:
            yield {"data": html}
            shown = html
        if settled:
            yield SETTLED
            return
        await anyio.sleep(POLL_SECONDS)


def _part(ref: str) -> tuple[str, bool]:
    with db.transaction() as session:
        view = mix_views.view(session, blob_stores.store(), mixes.get(session, ref))
        return render("_mix.html", view=view), view.settled
