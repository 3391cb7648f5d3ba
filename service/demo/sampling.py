"""Asks the served mix for one completion in each domain, with OpenAI's client."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from openai import OpenAI

MAX_TOKENS = 48


@dataclass(frozen=True)
class Completion:
    """A completion by the served mix, and the seconds it took."""

    domain: str
    prompt: str
    text: str
    num_tokens: int
    seconds: float


def complete(address: str, *, key: str, model: str, prompts: Mapping[str, str]) -> list[Completion]:
    """Complete the prompt of each domain greedily, one after the other."""
    completions = []
    with OpenAI(base_url=f"{address}/v1", api_key=key) as client:
        for domain, prompt in prompts.items():
            began = time.monotonic()
            answer = client.completions.create(
                model=model, prompt=prompt, max_tokens=MAX_TOKENS, temperature=0
            )
            seconds = time.monotonic() - began
            num_tokens = answer.usage.completion_tokens if answer.usage else 0
            text = answer.choices[0].text
            completions.append(Completion(domain, prompt, text, num_tokens, seconds))
    return completions


def tokens_per_second(completions: list[Completion]) -> float:
    """Return the speed of one request at a time, with the time to read the prompt."""
    return sum(c.num_tokens for c in completions) / sum(c.seconds for c in completions)
