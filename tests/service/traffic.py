"""An application that keeps sending requests to the gateway, and records how each one ended."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import openai

# Streams are long, so that one is often running when the server of the model changes.
NUM_TOKENS = {"whole": 8, "stream": 100}
# Pause between two requests: the same processor also makes the next mix.
PAUSE_SECONDS = 0.3


class Traffic:
    """One thread requests whole answers, one requests streams; neither sends a request again."""

    def __init__(self, address: str, *, key: str, model: str) -> None:
        self.failures: list[str] = []
        self.num_answered = dict.fromkeys(NUM_TOKENS, 0)
        self._client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
        self._model = model
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_asking, args=(kind,)) for kind in self.num_answered
        ]

    @contextmanager
    def flowing(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()
            self._client.close()

    def _keep_asking(self, kind: str) -> None:
        number = 0
        while not self._stopping.wait(PAUSE_SECONDS):
            number += 1
            try:
                num_tokens = self._whole(number) if kind == "whole" else self._stream(number)
                assert num_tokens == NUM_TOKENS[kind], f"{num_tokens} tokens"
            except Exception as error:
                self.failures.append(f"{kind} {number}: {error!r}")
            else:
                self.num_answered[kind] += 1

    def _whole(self, number: int) -> int:
        answer = self._client.completions.create(
            model=self._model,
            prompt=f"number {number}",
            max_tokens=NUM_TOKENS["whole"],
            extra_body={"ignore_eos": True},
        )
        assert answer.usage is not None
        return answer.usage.completion_tokens

    def _stream(self, number: int) -> int:
        """Return the token count from the end of a stream; a stream that was cut has none."""
        stream = self._client.completions.create(
            model=self._model,
            prompt=f"number {number}",
            max_tokens=NUM_TOKENS["stream"],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        return sum(chunk.usage.completion_tokens for chunk in stream if chunk.usage)
