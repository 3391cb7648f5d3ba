"""Applications notice nothing while the mix behind their model name is changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from assembler import mixes
from assembler.recipe import Finetune
from assembler.requests import Request
from assembler.tables import MixState
from engine.tables import DeploymentState
from registry import blobs as blob_stores
from registry import db
from registry.settings import settings
from service.client import Change, Client
from service.schemas import MixBody
from tests.assembler import rows
from tests.assembler.workers import LENIENT
from tests.service.services import serving, wait_for
from tests.service.traffic import Traffic

BRIEF = Finetune(tokens=2 * 4 * 32, batch_size=4, sequence_length=32).model_dump()


@pytest.fixture
def home(home: Path, servers: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Not below pytest's folder, which another run of pytest would close to the database."""
    folder = servers / "traffic"
    monkeypatch.setenv("NEXUSMIX_HOME", str(folder))
    settings.cache_clear()
    yield folder
    db.engine().dispose()


@pytest.mark.slow
def test_no_request_fails_while_a_mix_is_extended_and_reduced(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(home) as service:
        monkeypatch.setenv("NEXUSMIX_DATABASE_URL", service.database_url)
        settings.cache_clear()
        _request_mix()
        key = (home / "api-key").read_text().strip()
        with Client(service.address, key=key) as client:
            first = client.wait_for_mix(client.mix("mine"))
            assert (first.state, first.error) == (MixState.SUCCEEDED, None)
            assert client.wait_for_deployment("mine").state is DeploymentState.READY
            traffic = Traffic(service.address, key=key, model="mine")
            with traffic.flowing():
                _wait_for_answers(traffic)
                second = _change(client, first, "extend", "expert-3", traffic=traffic)
                third = _change(client, second, "remove", "expert-1", traffic=traffic)
            assert traffic.failures == []
            assert third.recipe["experts"] == ["expert-2@1", "expert-3@1"]


def _request_mix() -> None:
    wish = Request(
        name="mine",
        family="tiny",
        experts=["expert-1", "expert-2"],
        finetune=BRIEF,
        gates=LENIENT.model_dump(),
    )
    with db.transaction() as session:
        rows.add_all(session, blob_stores.store(), num_experts=3)
        mixes.request(session, blob_stores.store(), wish, deploy=True)


def _change(
    client: Client, base: MixBody, change: Change, expert: str, *, traffic: Traffic
) -> MixBody:
    """The version that comes of it, once it alone is served and has answered."""
    asked = client.revise_mix(base, change, expert=expert, finetune=BRIEF, deploy=True)
    made = client.wait_for_mix(asked)
    assert (made.state, made.error) == (MixState.SUCCEEDED, None)
    assert made.base == base.ref
    wait_for(lambda: _serving(client) == [made.artifact], f"{made.ref} to be all that is served")
    _wait_for_answers(traffic)
    return made


def _serving(client: Client) -> list[int]:
    """Artifacts that have a server, or will have one."""
    ended = (DeploymentState.STOPPED, DeploymentState.FAILED)
    return [body.artifact_id for body in client.deployments() if body.state not in ended]


def _wait_for_answers(traffic: Traffic) -> None:
    """A few more of either kind, from now on."""
    seen = dict(traffic.num_answered)
    wait_for(
        lambda: (
            all(traffic.num_answered[kind] > seen[kind] + 2 for kind in seen)
            or bool(traffic.failures)
        ),
        "answers",
    )
    assert traffic.failures == []
