"""Compare models behind vLLM, or a server with the same API, by token ids. Needs httpx.

All requests go to `/v1/completions` with the fields `prompt_logprobs` and `return_token_ids`, so
they also pass through a gateway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from engine.divergence.errors import Incomparable, RequestRefused, ServerUnavailable
from engine.divergence.metrics import Continuation, Reading, Tokens

REQUEST_SECONDS = 600.0
# Bounds the size of one response: two log-probabilities per token, about 200 bytes as JSON.
PROMPTS_PER_REQUEST = 32

# The response fields that a comparison needs, and the error message when one is missing.
NEEDED = {
    "prompt_logprobs": "returns no log-probabilities of a prompt's tokens (`prompt_logprobs`)",
    "token_ids": "returns no ids of the tokens it writes (`return_token_ids`)",
    "prompt_token_ids": "returns no ids of a prompt's tokens (`return_token_ids`)",
    "logprobs": "returns no log-probabilities of the tokens it writes (`logprobs`)",
}

Choice = dict[str, Any]


@dataclass(frozen=True)
class ServerRunner:
    """The model called `model` behind `address`, `http://HOST:PORT/v1`.

    `socket` is the path of the Unix socket that the server listens on, if it has no port.

    Methods raise ServerUnavailable when the server fails, and RequestRefused with the server's own
    message when it refuses a request.
    """

    address: str
    model: str
    key: str | None = None
    socket: str | None = None

    def check(self, *, vocab_size: int | None = None) -> None:
        """Check in one request of one token that the server returns everything a comparison needs.

        Raises Incomparable when a field is missing, or when the vocabulary is not `vocab_size`
        tokens.
        """
        [choice] = self._complete([[0]], **_WRITING, prompt_logprobs=1)
        missing = [reason for field, reason in NEEDED.items() if choice.get(field) is None]
        if missing:
            raise Incomparable(f"{self}: it {'; it '.join(missing)}")
        if vocab_size is not None:
            self._check_vocabulary(vocab_size)

    def write(self, prefixes: Sequence[Tokens], *, num_tokens: int) -> list[Continuation]:
        """Continue each prefix greedily. The server decides itself where a text ends."""
        choices = self._complete(prefixes, **_WRITING, max_tokens=num_tokens)
        return [
            Continuation(tuple(prefix), tuple(choice["token_ids"]), _margins(choice))
            for prefix, choice in zip(prefixes, choices, strict=True)
        ]

    def read(self, continuations: Sequence[Continuation]) -> list[Reading]:
        """Return the predictions at every token of each continuation."""
        texts = [c.prefix + c.tokens for c in continuations]
        choices = self._complete(texts, prompt_logprobs=1)
        return [
            _reading(continuation, choice["prompt_logprobs"])
            for continuation, choice in zip(continuations, choices, strict=True)
        ]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text by the server's tokenizer, no special ones."""
        choices = self._complete(texts, return_token_ids=True, add_special_tokens=False)
        return [choice["prompt_token_ids"] for choice in choices]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included."""
        [choice] = self._complete(
            [list(tokens)], echo=True, max_tokens=0, skip_special_tokens=False
        )
        return str(choice["text"])

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int] | None:
        """Return the prompt's token ids for a conversation, by the server's own chat template.

        None when the server does not chat.
        """
        body = {"messages": list(messages), "max_tokens": 1, "return_token_ids": True}
        try:
            tokens = self._post(body, path="chat/completions").get("prompt_token_ids")
        except RequestRefused:
            return None
        return None if tokens is None else list(tokens)

    def card(self) -> dict[str, Any]:
        """Return the server's model card, without fields that change between requests.

        Raises Incomparable when the server has no such model.
        """
        try:
            with self._client(timeout=10) as client:
                response = client.get(f"{self.address}/models")
            response.raise_for_status()
            cards = {card["id"]: card for card in response.json()["data"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise ServerUnavailable(f"{self.address}/models lists no models: {error}") from error
        if self.model not in cards:
            raise Incomparable(
                f"{self.address} has no model {self.model!r}; there are {sorted(cards)}"
            )
        changing = ("created", "permission")
        return {name: value for name, value in cards[self.model].items() if name not in changing}

    def __str__(self) -> str:
        return f"{self.address}#{self.model}"

    def _check_vocabulary(self, vocab_size: int) -> None:
        """Raise Incomparable unless exactly the ids below `vocab_size` are accepted."""
        try:
            self._complete([[vocab_size - 1]])
        except RequestRefused as error:
            raise Incomparable(
                f"{self} has a smaller vocabulary than {vocab_size} tokens: {error}"
            ) from error
        try:
            self._complete([[vocab_size]])
        except RequestRefused:
            return
        raise Incomparable(f"{self} has a larger vocabulary than {vocab_size} tokens")

    def _complete(self, prompts: Sequence[Sequence[int] | str], **fields: Any) -> list[Choice]:
        """Return one choice for each prompt, in their order."""
        choices: list[Choice] = []
        for start in range(0, len(prompts), PROMPTS_PER_REQUEST):
            batch = [
                prompt if isinstance(prompt, str) else list(prompt)
                for prompt in prompts[start : start + PROMPTS_PER_REQUEST]
            ]
            response = self._post({"prompt": batch, "max_tokens": 1, **fields})
            choices += sorted(response["choices"], key=lambda choice: int(choice["index"]))
        if len(choices) != len(prompts):
            raise Incomparable(f"{self} answers {len(prompts)} prompts with {len(choices)} texts")
        return choices

    def _post(self, body: dict[str, Any], *, path: str = "completions") -> dict[str, Any]:
        try:
            with self._client(timeout=REQUEST_SECONDS) as client:
                response = client.post(
                    f"{self.address}/{path}", json={"model": self.model, "temperature": 0, **body}
                )
        except httpx.HTTPError as error:
            raise ServerUnavailable(f"{self} does not answer: {error!r}") from error
        if response.is_client_error:
            raise RequestRefused(
                f"{self} refuses with {response.status_code}: {_error_message(response)}"
            )
        try:
            content: dict[str, Any] = response.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise ServerUnavailable(f"{self} does not answer: {error}") from error
        return content

    def _client(self, *, timeout: float) -> httpx.Client:
        return httpx.Client(
            headers={} if self.key is None else {"Authorization": f"Bearer {self.key}"},
            timeout=timeout,
            transport=httpx.HTTPTransport(uds=self.socket),
        )


# The two greatest log-probabilities of each token, by token id: two tokens may have the same text.
_WRITING: dict[str, Any] = {
    "logprobs": 2,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
}


def _margins(choice: Choice) -> tuple[float, ...]:
    """Return the difference of the two greatest log-probabilities at each written token."""
    top_logprobs = [
        sorted(by_token.values(), reverse=True) for by_token in choice["logprobs"]["top_logprobs"]
    ]
    return tuple(float(first - second) for first, second, *_ in top_logprobs)


def _reading(
    continuation: Continuation, prompt_logprobs: list[dict[str, dict[str, Any]]]
) -> Reading:
    """Return the reading of a continuation from the server's `prompt_logprobs`."""
    positions = prompt_logprobs[len(continuation.prefix) :]
    pairs = list(zip(continuation.tokens, positions, strict=True))
    return Reading(
        predicted=tuple(_argmax(entries) for _, entries in pairs),
        logprobs=tuple(float(entries[str(token)]["logprob"]) for token, entries in pairs),
    )


def _argmax(entries: dict[str, dict[str, Any]]) -> int:
    """Return the predicted token at one position.

    `entries` holds the likeliest token and the token of the text. When both are equally likely the
    lower id wins, as everywhere. The server does not report a third token.
    """
    return int(max(entries, key=lambda token: (entries[token]["logprob"], -int(token))))


def _error_message(response: httpx.Response) -> str:
    """Return the message of an error response, in OpenAI's or FastAPI's format if it has one."""
    try:
        body = response.json()
        return str(body.get("error", body).get("message", body))
    except (ValueError, AttributeError):
        return response.text[:500]
