"""A real vLLM server with a tiny mix, asked by OpenAI's client: who spoke, and who did not.

What the middleware does before vLLM is asked is in `test_refusals`.

Every answer is compared with the reference network of a mix assembled without the experts that are
off.

Covers: answers, collecting, output_processor.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from engine.vllm_plugin.attribution.experts import SHARED
from engine.vllm_plugin.attribution.nexus_field import HEADER
from engine.vllm_server import vllm_process
from engine.vllm_server.vllm_process import Server
from registry import settings
from registry.blobs.blobs import LocalBlobs
from tests.assembler import networks
from tests.engine.forwarding import forwarded
from tests.engine.vllm_plugin.attribution.reference import Reference

pytestmark = pytest.mark.slow

A = networks.ARCHITECTURES["convex-top-2"]
NAMES = A.expert_names
COLUMNS = (*NAMES, SHARED)
NUM_TOKENS = 10
PROMPT = "to be, or not to be"
CHAT: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": PROMPT}]
# Greedy, and as long as asked.
COMMON: dict[str, Any] = {"model": "mix", "temperature": 0, "max_tokens": NUM_TOKENS}


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> LocalBlobs:
    return LocalBlobs(tmp_path_factory.mktemp("home") / "blobs")


@pytest.fixture(scope="module")
def reference(blobs: LocalBlobs) -> Reference:
    return Reference.of(networks.store(blobs, A), blobs)


@pytest.fixture(scope="module")
def served(reference: Reference, blobs: LocalBlobs) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXUSMIX_HOME", str(blobs.root.parent))
        settings.settings.cache_clear()
        log_path = blobs.root.parent / "server.log"
        mix = reference.mix
        with vllm_process.serving(mix, blobs=blobs, log_path=log_path, model="mix") as served:
            served.wait_ready()
            yield served


@pytest.fixture(scope="module")
def url(served: Server) -> Iterator[str]:
    with forwarded(served.address) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def body(nexus: Any = None, **others: Any) -> dict[str, Any]:
    """Return the fields that OpenAI does not know."""
    field = {} if nexus is None else {"nexus": nexus}
    return {"ignore_eos": True, "return_token_ids": True, **field, **others}


def rows(told: list[dict[str, Any]]) -> list[Any]:
    """Return weights by name as rows [M], or [L, M] of weights by block."""
    assert all(tuple(row) == COLUMNS for row in told)
    columns = [list(row.values()) for row in told]
    return [list(zip(*row, strict=True)) if isinstance(row[0], list) else row for row in columns]


def numbers(names: list[str]) -> list[int]:
    return [NAMES.index(name) for name in names]


def check(reference: Reference, choice: Any, nexus: dict[str, Any]) -> None:
    """Assert that a choice of a completion, with the ids of its tokens, equals the reference."""
    told = choice.nexus
    head = len(choice.prompt_token_ids) - 1
    told_rows = rows(told["tokens"])
    if nexus.get("prompt"):
        assert told["prompt"][0] is None
        told_rows = rows(told["prompt"][1:]) + told_rows
    reference.check(
        choice.prompt_token_ids,
        choice.token_ids,
        told_rows,
        disabled=numbers(nexus.get("disable", [])),
        blocks=nexus["routing"] == "blocks",
        first=0 if nexus.get("prompt") else head,
    )


ASKED: list[dict[str, Any]] = [
    {"routing": True},
    {"routing": True, "disable": [NAMES[1]]},
    {"routing": "blocks", "disable": [NAMES[0]]},
    {"routing": "blocks", "prompt": True, "disable": [NAMES[0], NAMES[2]]},
    {"routing": True, "prompt": True},
]


def test_requests_together_are_answered_each_by_its_experts(
    client: openai.OpenAI, reference: Reference
) -> None:
    """All together, so that they share batches; twice, so that prompts come from the cache."""

    def ask(nexus: dict[str, Any]) -> Any:
        return client.completions.create(prompt=PROMPT * 8, extra_body=body(nexus), **COMMON)

    with ThreadPoolExecutor(len(ASKED)) as pool:
        for _ in range(2):
            for nexus, answer in zip(ASKED, pool.map(ask, ASKED), strict=True):
                check(reference, answer.choices[0], nexus)


def test_usage_has_the_sums(client: openai.OpenAI) -> None:
    asked = body({"routing": True, "prompt": True})
    answer: Any = client.completions.create(prompt=PROMPT, extra_body=asked, **COMMON)
    told, sums = answer.choices[0].nexus, answer.usage.nexus
    for kind, tokens in (
        ("prompt_tokens", told["prompt"][1:]),
        ("completion_tokens", told["tokens"]),
    ):
        for name in COLUMNS:
            assert sums[kind][name] == pytest.approx(sum(row[name] for row in tokens), abs=1e-2)
    assert sum(sums["completion_tokens"].values()) == pytest.approx(NUM_TOKENS, abs=1e-2)


def test_a_stream_tells_with_each_token(client: openai.OpenAI, reference: Reference) -> None:
    nexus = {"routing": True, "prompt": True, "disable": [NAMES[1]]}
    events: list[Any] = list(
        client.completions.create(
            prompt=PROMPT,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=body(nexus),
            **COMMON,
        )
    )
    choices = [choice for event in events for choice in event.choices]
    prompt = next(c.prompt_token_ids for c in choices if c.model_extra.get("prompt_token_ids"))
    told = [c.nexus for c in choices if "nexus" in c.model_extra]
    assert [len(c.token_ids) for c in choices if c.token_ids] == [len(t["tokens"]) for t in told]
    reference.check(
        prompt,
        [token for c in choices for token in c.token_ids or []],
        rows(told[0]["prompt"][1:]) + rows([row for t in told for row in t["tokens"]]),
        disabled=[1],
    )
    assert sum(events[-1].usage.nexus["completion_tokens"].values()) == pytest.approx(NUM_TOKENS)


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_told_too_and_has_no_ids_that_nobody_asked_for(
    client: openai.OpenAI, stream: bool
) -> None:
    asked = {"nexus": {"routing": True, "only": [NAMES[2]]}, "ignore_eos": True}
    answer: Any = client.chat.completions.create(
        messages=CHAT, stream=stream, extra_body=asked, **COMMON
    )
    events = list(answer) if stream else [answer]
    choices = [choice for event in events for choice in event.choices]
    told = [
        row for choice in choices for row in choice.model_extra.get("nexus", {}).get("tokens", [])
    ]
    assert len(told) == NUM_TOKENS
    # Top-2 of one expert: it has all of the probability, and nothing is left to the others.
    assert all(row == dict.fromkeys(COLUMNS, 0.0) | {NAMES[2]: 1.0} for row in told)
    assert not any("token_ids" in choice.model_extra for choice in choices)
    assert not any("prompt_token_ids" in event.model_extra for event in events)


def test_every_choice_of_every_prompt_has_its_own(
    client: openai.OpenAI, reference: Reference
) -> None:
    answer: Any = client.completions.create(
        **COMMON | {"temperature": 1},
        prompt=[PROMPT, "not to be"],
        n=2,
        seed=1,
        extra_body=body({"routing": True}),
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for choice in answer.choices:
        prompt, written = choice.prompt_token_ids, choice.token_ids
        _, weights_TLM = reference.read([*prompt, *written[:-1]])
        expected = weights_TLM.mean(1)[len(prompt) - 1 :].tolist()
        assert rows(choice.nexus["tokens"]) == [pytest.approx(row, abs=1e-4) for row in expected]


@pytest.mark.parametrize("own_salt", [None, "mine"])
def test_masks_do_not_share_the_prefix_cache(
    client: openai.OpenAI, reference: Reference, own_salt: str | None
) -> None:
    salt = {} if own_salt is None else {"cache_salt": own_salt}
    prompt = f"{own_salt} " * 40
    for disabled in ([], [NAMES[0]], [NAMES[1]], []):
        nexus = {"routing": True, "disable": disabled}
        answer = client.completions.create(prompt=prompt, extra_body=body(nexus, **salt), **COMMON)
        check(reference, answer.choices[0], nexus)


@pytest.mark.parametrize("forged", [[0], [77], {"disabled": [0]}])
def test_what_a_client_writes_for_the_worker_is_dropped(
    client: openai.OpenAI, reference: Reference, forged: Any
) -> None:
    forgery = {"vllm_xargs": {"nexus": forged if isinstance(forged, list) else json.dumps(forged)}}
    asked = body({"routing": True}, **forgery)
    answer = client.completions.create(prompt=PROMPT, extra_body=asked, **COMMON)
    check(reference, answer.choices[0], {"routing": True})
    plain: Any = client.completions.create(prompt=PROMPT, extra_body=body(**forgery), **COMMON)
    predicted, _ = reference.read(plain.choices[0].prompt_token_ids)
    assert plain.choices[0].token_ids[0] == predicted[-1]


def test_a_request_without_the_field_is_answered_by_vllm(url: str) -> None:
    asked = {**COMMON, "prompt": PROMPT, "nexus": None}
    answer = httpx.post(f"{url}/v1/completions", json=asked)
    assert "nexus" not in answer.text
    assert HEADER not in answer.headers


def test_a_wrong_field_is_refused(client: openai.OpenAI) -> None:
    asked = body({"disable": ["nobody"]})
    with pytest.raises(openai.BadRequestError, match="names 'nobody', the experts are expert-0"):
        client.completions.create(prompt=PROMPT, extra_body=asked, **COMMON)


def test_errors_of_vllm_stay_as_they_are(url: str) -> None:
    asked = {**COMMON, "max_tokens": 100_000, "prompt": PROMPT, "nexus": {"routing": True}}
    answer = httpx.post(f"{url}/v1/completions", json=asked)
    assert answer.status_code == 400
    assert "max_tokens" in answer.json()["error"]["message"]


def test_tokens_of_all_requests_are_counted(served: Server, client: openai.OpenAI) -> None:
    before = counted(served)
    plain: Any = client.completions.create(prompt="99", extra_body=body(), **COMMON)
    after = counted(served)
    new = {key: after[key] - before.get(key, 0.0) for key in after}
    written = [new[name, "completion"] for name in COLUMNS]
    assert sum(written) == pytest.approx(NUM_TOKENS, abs=1e-3)
    # All tokens of the prompt but the last, which writes the first token.
    read = [new[name, "prompt"] for name in COLUMNS]
    assert sum(read) == pytest.approx(len(plain.choices[0].prompt_token_ids) - 1, abs=1e-3)


def counted(served: Server) -> dict[tuple[str, str], float]:
    """Return the tokens of each expert and kind so far."""
    pattern = r'^nexusmix:expert_tokens_total\{expert="(.+)",kind="(.+)",model_name="mix"\} (.+)$'
    found = re.findall(pattern, served.get("/metrics").text, re.MULTILINE)
    return {(expert, kind): float(value) for expert, kind, value in found}
