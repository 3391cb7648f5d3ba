"""Generated requests over the whole OpenAPI document find no 5xx, and no undocumented answer."""

import pytest
from fastapi import FastAPI

from assembler.mixes import mix_state, mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixState
from registry.blobs.blobs import BlobStore
from registry.database import db
from registry.settings import settings
from service.app import create_app
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service.api import fuzzing
from tests.service.api.fuzzing import Outcome
from tests.service.conftest import serving

# Enough for a few cases of each operation, and for some sequences.
SECONDS = 30.0
SHORT_SECONDS = 15.0
# The same cases in every run.
ARGUMENTS = ("--generation-deterministic", "--max-examples=3")

EXPERTS = ["expert-1", "expert-2"]
# In a run of all phases, sequences of calls would get what time is left.
EACH_CALL, SEQUENCES = "--phases=examples,coverage,fuzzing", "--phases=stateful"
WITHOUT_KEY = "--phases=coverage"


@pytest.fixture
def objects(store: BlobStore) -> None:
    """Families, experts and mixes in several states, so that requests meet more than 404.

    Names in answers are what schemathesis takes for the parameters of later requests.
    """
    with db.transaction() as session:
        rows.add_all(session, store, num_experts=3)
        published, refused, _ = (
            mixes.request(session, store, NewMix(name=name, family="tiny", experts=EXPERTS))
            for name in ("published", "refused", "queued")
        )
        publish(session, store, published)
        mix_state.finish(session, refused.id, state=MixState.FAILED, error="diverges")


@pytest.fixture
def unlimited_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_MAX_REQUESTS_PER_SECOND", "100000")
    settings.cache_clear()


def run(*, key: str | None, phases: str, seconds: float) -> Outcome:
    with serving(create_app()) as address:
        return fuzzing.run(address, key=key, seconds=seconds, arguments=(*ARGUMENTS, phases))


@pytest.mark.slow
@pytest.mark.usefixtures("objects", "unlimited_rate")
def test_no_generated_request_finds_a_fault(key: str) -> None:
    outcome = run(key=key, phases=EACH_CALL, seconds=SECONDS)
    assert outcome.failures == {}, outcome.log
    assert outcome.num_cases > 100
    # Without rows, no operation on a named object answers with more than an error.
    assert len([operation for operation in outcome.answered if "{" in operation]) >= 5


@pytest.mark.slow
@pytest.mark.usefixtures("objects", "unlimited_rate")
def test_no_generated_sequence_finds_a_fault(key: str) -> None:
    outcome = run(key=key, phases=SEQUENCES, seconds=SHORT_SECONDS)
    assert outcome.failures == {}, outcome.log
    assert outcome.num_cases > 0


@pytest.mark.slow
@pytest.mark.usefixtures("objects", "unlimited_rate")
def test_without_a_key_no_generated_request_reads_an_object() -> None:
    outcome = run(key=None, phases=WITHOUT_KEY, seconds=SHORT_SECONDS)
    assert outcome.failures == {}, outcome.log
    assert outcome.num_cases > 0
    assert not [operation for operation in outcome.answered if "{" in operation]


@pytest.mark.slow
def test_a_fault_is_found() -> None:
    """A run that cannot fail would show nothing."""
    app = FastAPI(openapi_url=fuzzing.DOCUMENT)

    @app.get("/api/v1/things/{number}")
    def get(number: int) -> dict[str, int]:
        return {"inverse": 1 // number}

    with serving(app) as address:
        outcome = fuzzing.run(address, key=None, seconds=SECONDS, arguments=ARGUMENTS)
    assert "not_a_server_error" in outcome.failures
