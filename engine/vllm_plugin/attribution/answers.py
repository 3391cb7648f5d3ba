"""Fill the weights of experts into what vLLM answers: a whole body, or each event of a stream."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Send

from engine.vllm_plugin.attribution.collecting import Collector
from engine.vllm_plugin.attribution.experts import Experts
from engine.vllm_plugin.attribution.nexus_field import FIELD

# A float32 has no more digits that are sure.
DIGITS = 6
EVENT, EVENT_END = b"data: ", b"\n\n"


class Answer:
    """Sends an answer, with the rows of its tokens filled in.

    vLLM was asked for the ids of tokens, which say how many tokens an event holds. With `hides_ids`
    the client does not get them.
    """

    def __init__(
        self, send: Send, collector: Collector, experts: Experts, *, hides_ids: bool
    ) -> None:
        self._send, self._collector, self._experts = send, collector, experts
        self._hides_ids = hides_ids
        self._start: Message = {}
        self._is_stream = False
        self._rest = b""

    async def send(self, message: Message) -> None:
        """Send a message of ASGI; the start of a whole body waits for its length."""
        if message["type"] == "http.response.start":
            self._start = message
            content_type = dict(message["headers"]).get(b"content-type", b"")
            self._is_stream = content_type.startswith(b"text/event-stream")
            if self._is_stream:
                await self._send(message)
            return
        self._rest += message.get("body", b"")
        is_last = not message.get("more_body", False)
        if self._is_stream:
            events, self._rest = self._whole_events(is_last=is_last)
            if events:
                await self._send({**message, "body": await self._filled_events(events)})
        elif is_last:
            # In a thread: many tokens take long, and streams of others would wait.
            await self._send_whole(await run_in_threadpool(self._filled, self._rest))

    def _whole_events(self, *, is_last: bool) -> tuple[list[bytes], bytes]:
        *events, rest = self._rest.split(EVENT_END)
        whole = [event + EVENT_END for event in events]
        return ([*whole, rest], b"") if is_last else (whole, rest)

    async def _filled_events(self, events: list[bytes]) -> bytes:
        if self._collector.prompts:
            filled = await run_in_threadpool(lambda: [self._event(event) for event in events])
        else:
            filled = [self._event(event) for event in events]
        return b"".join(filled)

    async def _send_whole(self, body: bytes) -> None:
        others = [(k, v) for k, v in self._start["headers"] if k != b"content-length"]
        headers = [*others, (b"content-length", str(len(body)).encode())]
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _event(self, event: bytes) -> bytes:
        if not event.startswith(EVENT + b"{"):
            return event
        return EVENT + self._filled(event.removeprefix(EVENT)) + EVENT_END

    def _filled(self, text: bytes) -> bytes:
        """Return a JSON object of an answer with the rows in it."""
        answer = json.loads(text)
        if not isinstance(answer, dict):
            return text  # of a client that has gone
        for choice in answer.get("choices", ()):
            self._fill(choice)
        if self._hides_ids:
            answer.pop("prompt_token_ids", None)
        if answer.get("usage"):
            sums = self._collector.sums
            answer["usage"][FIELD] = {
                f"{kind}_tokens": self._by_name(sum_M, digits=3) for kind, sum_M in sums.items()
            }
        return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()

    def _fill(self, choice: dict[str, Any]) -> None:
        """Fill one choice in, and take away what only we asked for."""
        number = choice["index"]
        num_tokens = len(choice.get("token_ids") or ())
        rows = self._collector.take(number, num_tokens)
        told: dict[str, Any] = {}
        if (prompt := self._collector.prompts.pop(number, None)) is not None:
            # As in vLLM's log-probabilities of a prompt: nobody writes its first token.
            told["prompt"] = [None, *map(self._by_name, prompt)]
        if rows:
            told["tokens"] = [self._by_name(row) for row in rows]
        if told:
            choice[FIELD] = told
        if self._hides_ids:
            choice.pop("token_ids", None)
            choice.pop("prompt_token_ids", None)

    def _by_name(self, row: NDArray[Any], *, digits: int = DIGITS) -> dict[str, Any]:
        """Return a weight [M], or weights by block [L, M], by the name of each expert."""
        # Adding zero makes minus zero plain.
        columns = (np.round(row.astype(float), digits) + 0.0).T.tolist()
        by_name = dict(zip(self._experts.names, columns, strict=True))
        return {name: by_name[name] for name in self._experts.speakers}
