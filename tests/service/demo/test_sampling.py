"""Completions of the demo, from a small server with OpenAI's API."""

import pytest

from service.demo import sampling
from service.demo.sampling import Completion
from tests.service.conftest import serving
from tests.service.upstream import WORDS, Upstream


def test_each_domain_is_continued_once() -> None:
    upstream = Upstream()
    with serving(upstream.app) as address:
        prompts = {"law": "The court", "code": "def f"}
        completions = sampling.complete(address, key="k", model="both", prompts=prompts)
    assert [(c.domain, c.prompt) for c in completions] == list(prompts.items())
    assert {c.text for c in completions} == {"".join(WORDS)}
    assert len(upstream.requests) == 2
    assert all(c.seconds > 0 for c in completions)


def test_speed_is_of_all_tokens_in_all_seconds() -> None:
    completions = [Completion("a", "", "", 30, 1.0), Completion("b", "", "", 10, 3.0)]
    assert sampling.tokens_per_second(completions) == pytest.approx(10)
