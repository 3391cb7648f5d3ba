"""What a request may ask of an engine at most, so that one request never starves a model."""

from collections.abc import Iterator, Mapping
from typing import Any

from registry.errors import InvalidInput, Problem, pointer
from registry.settings import settings

# Each of them multiplies the work of a prompt.
CHOICES = ("n", "best_of", "beam_width")
# Each value costs a column as wide as the vocabulary; -1 means all of it.
LOGPROBS = ("logprobs", "top_logprobs", "prompt_logprobs")
# A pattern or a grammar is compiled before the first token, for as long as it takes.
GRAMMARS = (
    "guided_regex",
    "guided_grammar",
    "guided_json",
    "guided_choice",
    "structured_outputs",
    "response_format",
)
LENGTHS = {
    "stop": 64,
    "stop_token_ids": 64,
    "bad_words": 64,
    "logit_bias": 1024,
    "tools": 128,
    "messages": 10_000,
}


def check(request: Mapping[str, Any]) -> None:
    """Check the body of a completion request. Raises InvalidInput with every problem.

    Only what is counted is looked at; everything else is the engine's to check.
    """
    if problems := tuple(_problems(request)):
        first = problems[0]
        raise InvalidInput(f"{first.pointer} {first.detail}", problems=problems)


def _problems(request: Mapping[str, Any]) -> Iterator[Problem]:
    limits = settings()
    num_prompts = _num_prompts(request.get("prompt"))
    for field in CHOICES:
        if (answers := num_prompts * _count(request.get(field, 1))) > limits.max_answers:
            detail = f"makes {answers} answers in one request, at most {limits.max_answers} are"
            yield Problem(pointer(field if field in request else "prompt"), f"{detail} made")
    for field in LOGPROBS:
        if not 0 <= (number := _count(request.get(field))) <= limits.max_logprobs:
            yield Problem(pointer(field), f"is {number}, expected 0 to {limits.max_logprobs}")
    for field, most in LENGTHS.items():
        value = request.get(field)
        if isinstance(value, list | dict) and len(value) > most:
            detail = f"has {len(value)} entries, at most {most} are taken"
            yield Problem(pointer(field), detail)
    if request.get("chat_template") is not None:
        yield Problem(pointer("chat_template"), "is not taken: the model has its own template")
    for field in GRAMMARS:
        if (size := _num_characters(request.get(field))) > limits.max_grammar_characters:
            detail = f"has {size} characters, at most {limits.max_grammar_characters} are taken"
            yield Problem(pointer(field), detail)


def _num_prompts(prompt: Any) -> int:
    """Return how many prompts there are; a list of token ids is one."""
    is_list = isinstance(prompt, list) and not all(isinstance(item, int) for item in prompt)
    return len(prompt) if is_list else 1


def _count(value: Any) -> float:
    """Return a number as it is, and 0 for what the engine will refuse."""
    return value if isinstance(value, int | float) else 0


def _num_characters(value: Any) -> int:
    """Return the number of characters in all texts and names of a value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_num_characters, value))
    if isinstance(value, dict):
        return sum(len(name) + _num_characters(inner) for name, inner in value.items())
    return 0
