"""Generated requests over the whole OpenAPI document find no 5xx, and no undocumented answer."""

import pytest
from fastapi import FastAPI

from registry.settings import settings
from service.app import create_app
from tests.service.api import fuzzing
from tests.service.conftest import serving

# Of each half. Half a minute is enough for a few cases of each operation in every phase.
SECONDS = 30.0
# The same cases in every run.
ARGUMENTS = ("--generation-deterministic", "--max-examples=3")


@pytest.mark.slow
@pytest.mark.parametrize("has_key", [True, False])
def test_no_generated_request_finds_a_fault(
    key: str, has_key: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_MAX_REQUESTS_PER_SECOND", "100000")
    settings.cache_clear()
    with serving(create_app()) as address:
        outcome = fuzzing.run(
            address, key=key if has_key else None, seconds=SECONDS, arguments=ARGUMENTS
        )
    assert outcome.failures == {}, outcome.log
    assert outcome.num_cases > 100


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
