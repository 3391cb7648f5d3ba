"""Marks the answers of previews: mixes that their gate has not judged yet."""

import json
from typing import Any

from engine.vllm_plugin.attribution.nexus_field import FIELD

HEADER = "X-Nexusmix-Preview"
YES = "true"
EVENT, EVENT_END = b"data: ", b"\n\n"


def marked(answer: bytes) -> bytes:
    """Return the JSON of an answer with `nexus.preview`; what is no JSON object stays as it is."""
    try:
        content: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return answer
    if not isinstance(content, dict):
        return answer
    known = content.get(FIELD)
    content[FIELD] = (known if isinstance(known, dict) else {}) | {"preview": True}
    return json.dumps(content, ensure_ascii=False).encode()


def marked_events(events: bytes) -> bytes:
    """Return whole server-sent events, each of which that is an answer with `nexus.preview`."""
    return EVENT_END.join(_marked_event(event) for event in events.split(EVENT_END))


def _marked_event(event: bytes) -> bytes:
    if not event.startswith(EVENT + b"{"):
        return event
    return EVENT + marked(event.removeprefix(EVENT))
