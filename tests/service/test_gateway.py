"""The OpenAI-compatible routes, with OpenAI's client over real connections."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from sqlalchemy import update

from engine.serving.tables import AgentLease, Deployment, DeploymentState
from registry import settings
from registry.database import connections, db
from service.tables import ApiKey
from service.web import remembered
from tests.service.conftest import serving
from tests.service.cutting import cutting
from tests.service.services import wait_for
from tests.service.upstream import WORDS, Upstream, deploy

WAIT_SECONDS = 30


def say(text: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def engine(upstream: Upstream) -> Iterator[str]:
    with serving(upstream.app) as address:
        yield address


@pytest.fixture
def model(database: str, engine: str) -> str:
    return deploy("both", DeploymentState.READY, address=engine)


@pytest.fixture
def client(address: str, key: str) -> Iterator[openai.OpenAI]:
    with connected(address, key) as client:
        yield client


@contextmanager
def connected(address: str, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client:
        yield client


def test_models_are_listed(client: openai.OpenAI, model: str) -> None:
    deploy("starting", DeploymentState.STARTING)
    assert [entry.id for entry in client.models.list()] == [model]
    assert client.models.retrieve(model).owned_by == "nexusmix"


def test_a_chat_is_answered(
    client: openai.OpenAI, model: str, upstream: Upstream, key: str
) -> None:
    raw = client.chat.completions.with_raw_response.create(model=model, messages=say("hello"))
    assert raw.parse().choices[0].message.content == "".join(WORDS)
    assert 0 < float(raw.headers["x-nexusmix-overhead-ms"]) < 10_000
    assert (raw.headers.get("x-nexusmix-preview"), raw.parse().model_extra) == (None, {})
    (asked,) = upstream.requests
    assert key not in str(asked.headers)
    assert asked.headers["x-request-id"] == raw.headers["x-request-id"]


def test_a_completion_is_answered(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="hello")
    assert answer.choices[0].text == "".join(WORDS)


def test_a_stream_is_forwarded(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(model=model, messages=say("hello"), stream=True)
    assert [chunk.choices[0].delta.content for chunk in stream] == WORDS


def test_errors_of_the_engine_are_forwarded(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="16 tokens at most"):
        client.completions.create(model=model, prompt="too long")


def test_an_engine_that_dies_ends_the_stream_with_an_error(
    client: openai.OpenAI, model: str
) -> None:
    stream = client.chat.completions.create(model=model, messages=say("die"), stream=True)
    heard = []
    with pytest.raises(openai.APIError, match="stopped while answering"):
        heard += [chunk.choices[0].delta.content for chunk in stream]
    assert heard == []


def test_half_an_event_never_reaches_the_client(address: str, model: str, key: str) -> None:
    body = {"model": model, "messages": say("die"), "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    text = httpx.post(f"{address}/v1/chat/completions", json=body, headers=headers).text
    events = text.removesuffix("\n\n").split("\n\n")
    assert len(events) == len(WORDS) + 1
    assert '"half' not in text
    assert '"code": "unavailable"' in events[-1]


@pytest.mark.parametrize(
    ("path", "spec"),
    [
        ("completions", {"prompt": "think"}),
        ("chat/completions", {"messages": say("think"), "stream": True}),
    ],
)
def test_a_client_that_leaves_stops_the_engine(
    address: str, model: str, key: str, upstream: Upstream, path: str, spec: dict[str, Any]
) -> None:
    connection = HTTPConnection(address.removeprefix("http://"))
    headers = {"Authorization": f"Bearer {key}"}
    connection.request("POST", f"/v1/{path}", json.dumps({"model": model, **spec}), headers)
    assert upstream.began.wait(WAIT_SECONDS)
    connection.close()
    assert upstream.left.wait(WAIT_SECONDS)


def test_a_wrong_key_is_refused(address: str, model: str) -> None:
    with connected(address, "nxm_wrong") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.completions.create(model=model, prompt="hello")
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.completions.create(model="nobody", prompt="hello")
    assert (refused.value.code, refused.value.type) == ("model_not_found", "invalid_request_error")


@pytest.mark.parametrize("state", [DeploymentState.REQUESTED, DeploymentState.STARTING])
def test_a_starting_model_is_unavailable(client: openai.OpenAI, state: DeploymentState) -> None:
    deploy("early", state)
    with pytest.raises(openai.InternalServerError) as refused:
        client.completions.create(model="early", prompt="hello")
    assert refused.value.status_code == 503
    assert refused.value.response.headers["retry-after"] == "2"


def test_a_dead_engine_is_unavailable(client: openai.OpenAI) -> None:
    deploy("gone", DeploymentState.READY, address="http://127.0.0.1:9")
    with pytest.raises(openai.InternalServerError, match="restarted"):
        client.completions.create(model="gone", prompt="hello")


def test_an_engine_that_says_it_has_died_is_unavailable(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.InternalServerError, match="restarted") as caught:
        client.completions.create(model=model, prompt="die")
    assert caught.value.status_code == 503


def test_a_request_without_an_answer_is_sent_again(
    client: openai.OpenAI, database: str, engine: str, upstream: Upstream
) -> None:
    with cutting(engine, cuts=[(0, None), (None, 0)]) as line:
        deploy("cut", DeploymentState.READY, address=line.address)
        answer = client.completions.create(model="cut", prompt="hello")
        stream = client.chat.completions.create(model="cut", messages=say("hello"), stream=True)
        assert [chunk.choices[0].delta.content for chunk in stream] == WORDS
    assert answer.choices[0].text == "".join(WORDS)


def test_a_request_is_not_sent_again_once_its_answer_began(
    client: openai.OpenAI, database: str, engine: str, upstream: Upstream
) -> None:
    # The connection ends after the headers, inside the body.
    with cutting(engine, cuts=[(None, 200)]) as line:
        deploy("cut", DeploymentState.READY, address=line.address)
        with pytest.raises(openai.InternalServerError, match="does not answer"):
            client.completions.create(model="cut", prompt="hello")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"model": 3}', b"\xff"])
def test_a_body_without_a_model_is_refused(address: str, key: str, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{address}/v1/completions", content=body, headers=headers)
    assert answer.status_code == 400
    # What is no JSON object has no parameters.
    is_object = body in (b"{}", b'{"model": 3}', b"[]")
    assert answer.json()["error"]["param"] == ("model" if is_object else None)


def limit(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    for name, value in seconds.items():
        monkeypatch.setenv(f"NEXUSMIX_{name.upper()}_SECONDS", str(value))
    settings.settings.cache_clear()


def test_an_engine_that_never_answers_is_given_up(
    client: openai.OpenAI, model: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, first_byte=0.2)
    with pytest.raises(openai.InternalServerError, match="sent nothing for") as late:
        client.completions.create(model=model, prompt="think")
    assert (late.value.status_code, late.value.code) == (504, "timed_out")
    assert upstream.left.wait(WAIT_SECONDS)
    assert len(upstream.requests) == 1


def test_a_stream_that_falls_silent_ends_with_an_error(
    client: openai.OpenAI, model: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, event=0.2)
    stream = client.chat.completions.create(model=model, messages=say("think"), stream=True)
    heard = [next(stream).choices[0].delta.content for _ in WORDS]
    with pytest.raises(openai.APIError, match="sent nothing for"):
        next(stream)
    assert heard == WORDS
    assert upstream.left.wait(WAIT_SECONDS)


def test_a_stream_that_never_begins_ends_with_an_error(
    client: openai.OpenAI, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, first_byte=0.2)
    stream = client.chat.completions.create(model=model, messages=say("mute"), stream=True)
    with pytest.raises(openai.APIError, match="sent nothing for"):
        next(stream)


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A call that takes the database away from this process."""

    def lose() -> None:
        db.close()
        monkeypatch.setenv("NEXUSMIX_DATABASE_URL", "postgresql+psycopg://127.0.0.1:1/nothing")
        monkeypatch.setattr(connections, "FINAL", ("",))  # no refusal is waited out
        monkeypatch.setattr(remembered, "FRESH_SECONDS", 0.0)
        settings.settings.cache_clear()
        db.close()

    return lose


def test_a_lost_database_does_not_stop_models(
    client: openai.OpenAI, model: str, lost: Callable[[], None]
) -> None:
    client.completions.create(model=model, prompt="hello")
    client.models.list()
    lost()
    for _ in range(3):
        answer = client.completions.create(model=model, prompt="hello")
        assert answer.choices[0].text == "".join(WORDS)
    assert [entry.id for entry in client.models.list()] == [model]


def test_a_database_that_stays_away_stops_models(
    client: openai.OpenAI, model: str, lost: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    client.completions.create(model=model, prompt="hello")
    lost()
    limit(monkeypatch, outage=0)
    with pytest.raises(openai.InternalServerError, match="database does not answer"):
        client.completions.create(model=model, prompt="hello")


def test_a_revoked_key_stops_although_it_was_used(
    client: openai.OpenAI, model: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.completions.create(model=model, prompt="hello")
    with db.transaction() as session:
        session.execute(update(ApiKey).values(revoked_at=datetime.now(UTC)))

    def is_refused() -> bool:
        try:
            client.completions.create(model=model, prompt="hello")
        except openai.AuthenticationError:
            return True
        return False

    wait_for(is_refused, "the refusal", seconds=WAIT_SECONDS)


@pytest.fixture
def elsewhere(model: str, engine: str) -> None:
    """The model runs on another host, whose service answers at the address of the engine."""
    with db.transaction() as session:
        session.execute(update(Deployment).values(host="elsewhere", address="unix:/run/there"))
        session.add(
            AgentLease(
                host="elsewhere",
                token=1,
                holder="",
                expires_at=datetime.now(UTC),
                web_address=engine,
            )
        )


@pytest.mark.usefixtures("elsewhere")
def test_a_model_of_another_host_is_asked_there(
    client: openai.OpenAI, model: str, upstream: Upstream, key: str
) -> None:
    answer = client.completions.create(model=model, prompt="hello")
    assert answer.choices[0].text == "".join(WORDS)
    (asked,) = upstream.requests
    # The other service asks for the key itself.
    assert asked.headers["authorization"] == f"Bearer {key}"
    with pytest.raises(openai.InternalServerError, match="moving to another host"):
        client.completions.create(
            model=model, prompt="hello", extra_headers={"x-nexusmix-hop": "elsewhere"}
        )


@pytest.mark.usefixtures("elsewhere")
def test_a_host_that_listens_to_itself_only_is_named(client: openai.OpenAI, model: str) -> None:
    with db.transaction() as session:
        session.execute(update(AgentLease).values(web_address=None))
    with pytest.raises(openai.InternalServerError, match="host 'elsewhere', whose service"):
        client.completions.create(model=model, prompt="hello")


def test_a_model_that_moved_is_found(
    client: openai.OpenAI, model: str, upstream: Upstream, engine: str
) -> None:
    with serving(Upstream().app) as old:
        with db.transaction() as session:
            session.execute(update(Deployment).values(address=old))
        client.completions.create(model=model, prompt="hello")
    with db.transaction() as session:
        session.execute(update(Deployment).values(address=engine))
    assert client.completions.create(model=model, prompt="hello").choices[0].text == "".join(WORDS)
    assert len(upstream.requests) == 1
