"""What a served model says about given texts: teacher-forced, over HTTP, by token ids."""

from collections.abc import Sequence
from typing import Any

import httpx

from engine.divergence import Continuation, Reading
from engine.server import Server
from registry.errors import Unavailable

READ_SECONDS = 600.0

# Of one position: the served model's argmax, and the log-probability of the token that is there.
Position = tuple[int, float]


def read(server: Server, continuations: Sequence[Continuation]) -> list[Reading]:
    """One pass over each continuation, in order. Raises Unavailable when the server fails."""
    texts = [c.prefix + c.tokens for c in continuations]
    readings = []
    for continuation, positions in zip(continuations, prompt_logprobs(server, texts), strict=True):
        predicted, logprobs = zip(*positions[-len(continuation.tokens) :], strict=True)
        readings.append(Reading(predicted, logprobs))
    return readings


def prompt_logprobs(server: Server, prompts: Sequence[Sequence[int]]) -> list[list[Position]]:
    """For each prompt of token ids, its positions from the second token on (nats).

    Raises Unavailable when the server fails.
    """
    body = {
        "model": server.model,
        "prompt": [list(prompt) for prompt in prompts],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 1,
    }
    address = f"{server.address}/v1/completions"
    try:
        response = httpx.post(address, json=body, timeout=READ_SECONDS, trust_env=False)
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"the served model did not read the texts: {error}") from error
    choices = sorted(response.json()["choices"], key=lambda choice: choice["index"])
    return [
        [_position(token, said) for token, said in zip(prompt[1:], _said(choice), strict=True)]
        for prompt, choice in zip(prompts, choices, strict=True)
    ]


def _said(choice: dict[str, Any]) -> list[dict[str, dict[str, Any]]]:
    said: list[dict[str, dict[str, Any]]] = choice["prompt_logprobs"]
    return said[1:]  # nothing comes before the first token


def _position(token: int, said: dict[str, dict[str, Any]]) -> Position:
    top = next(int(other) for other, entry in said.items() if entry["rank"] == 1)
    return top, float(said[str(token)]["logprob"])
