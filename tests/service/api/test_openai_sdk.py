"""OpenAI's own client, sync, async and streaming, through the gateway, against a real vLLM.

The model is a tiny random mix with a tokenizer of bytes, and a template that takes tools. It writes
nonsense, so the tests look at the form of answers, and grammars decide what they say.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai.types.chat import (
    ChatCompletionNamedToolChoiceParam,
    ChatCompletionToolParam,
    ChatCompletionUserMessageParam,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engine.serving.tables import DeploymentState
from engine.vllm_server import vllm_process
from engine.vllm_server.vllm_process import Server
from registry import settings
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints.file_names import TOKENIZER, TOKENIZER_CONFIG
from tests import tiny
from tests.assembler import networks
from tests.service.upstream import deploy

pytestmark = pytest.mark.slow

SPECIAL = [tiny.UNKNOWN, tiny.BOS, tiny.EOS]
CONTEXT = 2048
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nFunctions:\n{% for tool in tools %}{{ tool | tojson }}\n"
    "{% endfor %}Call one as <tool_call>{...}</tool_call>.<|im_end|>\n{% endif %}"
) + tiny.CHAT_TEMPLATE
CHAT: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Which city?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[ChatCompletionToolParam] = [
    # Strict: the grammar of a call then includes the schema of its arguments.
    {"type": "function", "function": {"name": "weather", "parameters": CITY, "strict": True}}
]
WEATHER: ChatCompletionNamedToolChoiceParam = {
    "type": "function",
    "function": {"name": "weather"},
}
COMMON: dict[str, Any] = {"model": "sdk", "messages": CHAT, "max_tokens": 128, "temperature": 0}


def tokenizer() -> Tokenizer:
    """Return a tokenizer with one token for each byte, so that it can write all texts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    made = Tokenizer(models.BPE(vocab=words, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return made


def dense() -> dict[str, Any]:
    """Return the fields of a request whose answer holds no white space.

    Grammars of JSON allow any of it, and a random model may write nothing else.
    """
    spaces = tokenizer().encode(" \n\t\r").ids
    return COMMON | {"logit_bias": {str(number): -100 for number in spaces}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    blobs = LocalBlobs(home / "blobs")
    made = tokenizer()
    architecture = replace(
        networks.ARCHITECTURES["convex-top-2"],
        vocab_size=made.get_vocab_size(),
        max_position_embeddings=CONTEXT,
    )
    plain = networks.store(blobs, architecture)
    config = json.loads(tiny.tokenizer_files()[TOKENIZER_CONFIG])
    config |= {"chat_template": TEMPLATE, "model_max_length": CONTEXT}
    files = {
        TOKENIZER: put_bytes(blobs, made.to_str().encode()),
        TOKENIZER_CONFIG: put_bytes(blobs, json.dumps(config).encode()),
    }
    mix = replace(plain, files=files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXUSMIX_HOME", str(home))
        settings.settings.cache_clear()
        log_path = home / "server.log"
        with vllm_process.serving(mix, blobs=blobs, log_path=log_path, model="sdk") as running:
            running.wait_ready()
            yield running


@pytest.fixture
def url(address: str, served: Server) -> str:
    deploy("sdk", DeploymentState.READY, address=served.address)
    return f"{address}/v1"


@pytest.fixture
def client(url: str, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("choice", [WEATHER, "required"])
def test_a_tool_is_called(client: openai.OpenAI, choice: Any) -> None:
    answer = client.chat.completions.create(**dense(), tools=TOOLS, tool_choice=choice)
    assert answer.choices[0].message.tool_calls, answer.to_json()
    [call] = answer.choices[0].message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")


def test_a_named_tool_is_called_in_a_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        **dense(),
        tools=TOOLS,
        tool_choice=WEATHER,
        stream=True,
    )
    calls = [
        call
        for chunk in stream
        for choice in chunk.choices
        for call in choice.delta.tool_calls or []
    ]
    arguments = "".join((call.function and call.function.arguments) or "" for call in calls)
    assert json.loads(arguments)["city"] in ("Rome", "Oslo")


def test_tools_may_be_left_to_the_model(client: openai.OpenAI) -> None:
    with_tools = client.chat.completions.create(**COMMON, tools=TOOLS, tool_choice="auto")
    without = client.chat.completions.create(**COMMON)
    assert with_tools.usage is not None
    assert without.usage is not None
    # The template shows the tools to the model.
    assert with_tools.usage.prompt_tokens > without.usage.prompt_tokens + 50


def test_an_answer_follows_a_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        **dense(),
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "city", "schema": CITY, "strict": True},
        },
    )
    assert json.loads(answer.choices[0].message.content or "")["city"] in ("Rome", "Oslo")


def test_choices_log_probabilities_and_stops(client: openai.OpenAI) -> None:
    fields = COMMON | {"temperature": 1, "max_tokens": 8}
    asked: dict[str, Any] = {"n": 3, "logprobs": True, "top_logprobs": 2, "seed": 7}
    first, second = (client.chat.completions.create(**fields, **asked) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert len(texts) == 3
    assert texts == [choice.message.content for choice in second.choices]
    logprobs = first.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content)
    whole = client.completions.create(model="sdk", prompt="a", max_tokens=8, temperature=0)
    stop = whole.choices[0].text[3]
    stopped = client.completions.create(
        model="sdk", prompt="a", max_tokens=8, temperature=0, stop=[stop]
    )
    assert stopped.choices[0].finish_reason == "stop"
    assert stop not in stopped.choices[0].text


def test_a_stream_ends_with_its_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        **COMMON, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks)


def test_a_response_is_whole_or_streamed(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="sdk", input="Which city?", max_output_tokens=8)
    assert whole.output_text
    assert whole.usage is not None
    assert whole.usage.output_tokens == 8
    events = list(
        client.responses.create(
            model="sdk", input="Which city?", max_output_tokens=8, temperature=0, stream=True
        )
    )
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert any(event.type == "response.output_text.delta" for event in events)


def test_an_async_client_asks_several_at_once(url: str, key: str) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(**COMMON) for _ in range(4))
            )
            stream = await client.chat.completions.create(**COMMON, stream=True)
            pieces = [
                choice.delta.content or "" async for chunk in stream for choice in chunk.choices
            ]
        return [answer.choices[0].message.content or "" for answer in answers] + ["".join(pieces)]

    assert len(set(asyncio.run(ask()))) == 1


def test_what_is_too_long_is_an_error_of_the_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context length"):
        client.completions.create(model="sdk", prompt="a" * (CONTEXT + 1), max_tokens=1)
