"""No request to a model asks for more than a share of it."""

from typing import Any

import pytest

from registry.errors import InvalidInput
from registry.settings import settings
from service import completion_limits

ACCEPTED: list[dict[str, Any]] = [
    {},
    {"n": 4, "prompt": ["a", "b"], "stop": ["x"], "logprobs": True, "top_logprobs": 20},
    {"prompt": list(range(5000))},
    {"n": "many", "logprobs": None, "stop": "x", "prompt": 3},
    {"response_format": {"type": "json_schema", "json_schema": {"a": "b" * 1000}}},
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"n": 16384}, "/n"),
    ({"n": 1e9}, "/n"),
    ({"best_of": 65}, "/best_of"),
    ({"prompt": ["a"] * 1_000_000}, "/prompt"),
    ({"prompt": [[1, 2]] * 65}, "/prompt"),
    ({"prompt": ["a"] * 9, "n": 8}, "/n"),
    ({"logprobs": 1000}, "/logprobs"),
    ({"top_logprobs": 21}, "/top_logprobs"),
    ({"prompt_logprobs": -1}, "/prompt_logprobs"),
    ({"stop": ["x"] * 65}, "/stop"),
    ({"logit_bias": {str(token): 1 for token in range(2000)}}, "/logit_bias"),
    ({"messages": [{}] * 10_001}, "/messages"),
    ({"guided_regex": "(a+)+" * 3000}, "/guided_regex"),
    ({"structured_outputs": {"regex": "a" * 10_001}}, "/structured_outputs"),
    ({"chat_template": "{% for i in range(99999) %}{% endfor %}"}, "/chat_template"),
]


@pytest.mark.parametrize("request_body", ACCEPTED)
def test_usual_requests_are_accepted(request_body: dict[str, Any]) -> None:
    completion_limits.check(request_body)


@pytest.mark.parametrize(("request_body", "at"), REFUSED)
def test_costly_requests_are_refused(request_body: dict[str, Any], at: str) -> None:
    with pytest.raises(InvalidInput) as error:
        completion_limits.check(request_body)
    assert at in {problem.pointer for problem in error.value.problems}


def test_limits_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_MAX_ANSWERS", "1")
    settings.cache_clear()
    with pytest.raises(InvalidInput, match="at most 1 are made"):
        completion_limits.check({"n": 2})
