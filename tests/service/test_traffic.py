"""No request fails while the mix behind a model name is changed."""

import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from assembler.recipes.recipe import Finetune
from assembler.tables import MixState
from engine.serving.tables import DeploymentState
from engine.vllm_server import context, vllm_process
from registry.blobs import blob_stores
from registry.database import db
from registry.settings import settings
from service.client.client import Change, Client
from service.schemas.mixes import MixBody
from service.web import preview_marks
from tests import tiny
from tests.assembler import rows
from tests.assembler.published import publish
from tests.assembler.workers import LENIENT
from tests.service.services import serving, wait_for
from tests.service.traffic import Traffic

BRIEF = Finetune(tokens=2 * 4 * 32, batch_size=4, sequence_length=32).model_dump()
NONE = {"tokens": 0}
# The product's own limit for one server to start, and time for another to end.
PATIENCE_SECONDS = vllm_process.START_SECONDS + 120


@pytest.fixture
def home(
    home: Path, servers: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A data folder outside pytest's: another run of pytest would lock the database out of that.

    Its name is short, since paths of sockets are.
    """
    folder = servers / f"traffic-{zlib.crc32(request.node.name.encode()):x}"
    monkeypatch.setenv("NEXUSMIX_HOME", str(folder))
    settings.cache_clear()
    return folder


@pytest.mark.long
def test_no_request_fails_while_a_mix_is_extended_and_reduced(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(home) as service:
        monkeypatch.setenv("NEXUSMIX_DATABASE_URL", service.database_url)
        settings.cache_clear()
        _deploy_mix()
        key = (home / "api-key").read_text().strip()
        with Client(service.address, key=key) as client:
            first = client.mix("mine")
            _wait_until_alone(client, first)
            traffic = Traffic(service.address, key=key, model="mine")
            with traffic.flowing():
                _wait_for_answers(traffic)
                second = _change(
                    client, first, "extend", traffic=traffic, expert="expert-3", finetune=BRIEF
                )
                third = _change(
                    client, second, "remove", traffic=traffic, expert="expert-1", finetune=NONE
                )
            assert traffic.failures == []
            assert third.recipe["experts"] == ["expert-2@1", "expert-3@1"]


@pytest.mark.long
def test_no_request_fails_while_a_preview_becomes_the_release(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is killed meanwhile. The engine stays the same."""
    with serving(home) as service:
        monkeypatch.setenv("NEXUSMIX_DATABASE_URL", service.database_url)
        settings.cache_clear()
        with db.transaction() as session:
            rows.add_all(session, blob_stores.store())
        db.close()
        key = (home / "api-key").read_text().strip()
        with Client(service.address, key=key) as client:
            mix = client.request_mix(
                name="mine",
                family="tiny",
                experts=["expert-1", "expert-2"],
                finetune=NONE,
                gates=LENIENT.model_dump(),
                deploy=True,
                preview=True,
            )
            wait_for(
                lambda: client.previews() == {mix.ref}, "the preview", seconds=PATIENCE_SECONDS
            )
            (preview,) = client.deployments()
            assert _is_marked(service.address, key=key)
            traffic = Traffic(service.address, key=key, model="mine")
            with traffic.flowing():
                _wait_for_answers(traffic)
                service.kill("worker")
                made = client.wait_for_mix(mix)
                assert (made.state, made.error) == (MixState.SUCCEEDED, None)
                _wait_for_answers(traffic)
            assert traffic.failures == []
            (release,) = client.deployments()
            assert (release.artifact_id, release.preview) == (made.artifact, False)
            assert (release.id, release.ready_at) == (preview.id, preview.ready_at)
            assert not _is_marked(service.address, key=key)


@pytest.mark.long
def test_ten_models_answer_where_two_fit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clients ask for all of them, each in an order of its own."""
    room = 2 * context.engine_bytes(tiny.ARCHITECTURE) + 2**28
    names = [f"m{number}" for number in range(10)]
    with serving(home, own={"NEXUSMIX_ENGINE_MEMORY_BYTES": str(room)}) as service:
        monkeypatch.setenv("NEXUSMIX_DATABASE_URL", service.database_url)
        settings.cache_clear()
        _deploy_mix()
        key = (home / "api-key").read_text().strip()

        def ask(model: str) -> str:
            with openai.OpenAI(base_url=f"{service.address}/v1", api_key=key, max_retries=0) as ai:
                answer = ai.completions.create(model=model, prompt="a", max_tokens=4, temperature=0)
            return answer.choices[0].text

        with Client(service.address, key=key) as client:
            mix = client.mix("mine")
            _wait_until_alone(client, mix)
            for name in names:
                client.wait_for_deployment(client.deploy(mix, model=name))
            states = [body.state for body in client.deployments() if body.model in names]
            assert states.count(DeploymentState.ASLEEP) >= len(names) - 2
            with ThreadPoolExecutor() as pool:
                answers = list(pool.map(lambda order: [*map(ask, order)], (names, names[::-1])))
            assert len({text for texts in answers for text in texts}) == 1


def _is_marked(address: str, *, key: str) -> bool:
    """Tell whether `mine` answers as a preview, by each of the marks."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client:
        raw = client.completions.with_raw_response.create(model="mine", prompt="a", max_tokens=1)
        (entry,) = client.models.list()
    marks = {
        preview_marks.HEADER in raw.headers,
        (raw.parse().model_extra or {}).get("nexus") == {"preview": True},
        (entry.model_extra or {})["nexusmix"]["preview"],
    }
    (mark,) = marks
    return bool(mark)


def _deploy_mix() -> None:
    """Publish a mix of two experts and have it served; register a third expert."""
    spec = NewMix(
        name="mine",
        family="tiny",
        experts=["expert-1", "expert-2"],
        finetune=NONE,
        gates=LENIENT.model_dump(),
    )
    blobs = blob_stores.store()
    with db.transaction() as session:
        rows.add_all(session, blobs, num_experts=3)
        publish(session, blobs, mixes.request(session, blobs, spec))
        mixes.request(session, blobs, spec, deploy=True)
    db.close()


def _change(
    client: Client, base: MixBody, change: Change, *, traffic: Traffic, **request: Any
) -> MixBody:
    """Change the mix, and return the new version once it alone is served and has answered."""
    requested = client.revise_mix(base, change, **request, deploy=True)
    made = client.wait_for_mix(requested)
    assert (made.state, made.error) == (MixState.SUCCEEDED, None)
    assert made.base == base.ref
    _wait_until_alone(client, made, traffic=traffic)
    _wait_for_answers(traffic)
    return made


def _wait_until_alone(client: Client, mix: MixBody, *, traffic: Traffic | None = None) -> None:
    """Wait until it is ready, and no other deployment has a server or will have one."""

    def is_alone() -> bool:
        assert traffic is None or traffic.failures == []
        bodies = list(client.deployments())
        assert [body.error for body in bodies if body.state is DeploymentState.FAILED] == []
        live = [body for body in bodies if body.state is not DeploymentState.STOPPED]
        return [(body.artifact_id, body.state) for body in live] == [
            (mix.artifact, DeploymentState.READY)
        ]

    wait_for(is_alone, f"{mix.ref} to be all that is served", seconds=PATIENCE_SECONDS)


def _wait_for_answers(traffic: Traffic) -> None:
    """Wait for a few more answers of each kind."""
    seen = dict(traffic.num_answered)

    def has_answered() -> bool:
        assert traffic.failures == []
        return all(traffic.num_answered[kind] > seen[kind] + 2 for kind in seen)

    wait_for(has_answered, "answers")
