"""The live part of a mix's page: sent as a server-sent event each time it changes."""

from collections.abc import AsyncIterator
from functools import partial

from sse_starlette import EventSourceResponse

from assembler.mixes import mixes
from registry.blobs import blob_stores
from registry.database import db
from service.ui import mix_views
from service.ui.forms import RevisionForm
from service.ui.rendering import render
from service.web.released_blobs import ReleasedBlobs
from service.web.threads import FOLLOWING, Shared

POLL_SECONDS = 0.5
PING_SECONDS = 15
# All who look at a mix share one rendering.
_polls: Shared[tuple[str, bool]] = Shared(FOLLOWING, seconds=POLL_SECONDS)
# The page closes the stream at this event. If the stream only ended, the page would connect again.
SETTLED = {"event": "settled", "data": "settled"}


def follow(ref: str) -> EventSourceResponse:
    """Stream the live part of a mix's page until nothing changes by itself any more."""
    return EventSourceResponse(_parts(ref), ping=PING_SECONDS)


async def _parts(ref: str) -> AsyncIterator[dict[str, str]]:
    shown = ""
    while True:
        html, settled = await _polls.run(ref, partial(_part, ref))
        if html != shown:
            yield {"data": html}
            shown = html
        if settled:
            yield SETTLED
            return
        await _polls.next_period()


def _part(ref: str) -> tuple[str, bool]:
    """Return the rendered part, and whether it will not change by itself any more."""
    with db.transaction() as session:
        blobs = ReleasedBlobs(blob_stores.store(), session)
        view = mix_views.view(session, blobs, mixes.get(session, ref))
        # The last rendering offers changes, in forms as they are shown first.
        html = render("_mix.html", view=view, form=RevisionForm(deploy=True))
        return html, view.settled
