"""Answers of previews are marked: whole bodies and each event of a stream."""

import json

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from engine.serving.tables import DeploymentState
from service.web import preview_marks
from tests.service.conftest import serving
from tests.service.upstream import WORDS, Upstream, deploy


def test_an_answer_is_marked_and_keeps_its_fields() -> None:
    answer = json.dumps({"choices": [], "nexus": {"a": 1}, "text": "\u00fc"}).encode()
    marked = json.loads(preview_marks.marked(answer))
    assert marked == {"choices": [], "nexus": {"a": 1, "preview": True}, "text": "\u00fc"}


@pytest.mark.parametrize("answer", [b"", b"{", b"[1]", b"\xff"])
def test_what_is_no_object_stays(answer: bytes) -> None:
    assert preview_marks.marked(answer) == answer


def test_each_event_is_marked_but_the_last() -> None:
    events = b'data: {"choices": []}\n\n: ping\n\ndata: [DONE]\n\n'
    first, ping, done, rest = preview_marks.marked_events(events).split(b"\n\n")
    assert json.loads(first.removeprefix(b"data: "))["nexus"] == {"preview": True}
    assert (ping, done, rest) == (b": ping", b"data: [DONE]", b"")


def test_answers_of_a_preview_are_marked(address: str, key: str) -> None:
    upstream = Upstream()
    with (
        serving(upstream.app) as engine,
        openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client,
    ):
        deploy("both", DeploymentState.READY, address=engine, ref="both@1")
        (entry,) = client.models.list()
        assert entry.model_extra is not None
        assert (entry.id, entry.model_extra["nexusmix"]["preview"]) == ("both", True)
        for name in ("both", "both@1"):
            ask = client.completions.with_raw_response
            raw = ask.create(model=name, prompt="hello")
            assert raw.headers[preview_marks.HEADER] == "true"
            assert raw.parse().model_extra == {"nexus": {"preview": True}}
            says: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "hello"}]
            chunks = client.chat.completions.create(model=name, messages=says, stream=True)
            heard = [(c.choices[0].delta.content, c.model_extra) for c in chunks]
            assert heard == [(word, {"nexus": {"preview": True}}) for word in WORDS]
        with pytest.raises(openai.BadRequestError, match="16 tokens at most"):
            client.completions.create(model="both", prompt="too long")
