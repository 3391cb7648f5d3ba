"""`/metrics` and `/metrics/engines`, and the dashboard that shows them.

Covers: work_measures.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from assembler.tables import MixState
from engine.serving import deployments
from engine.serving.tables import DeploymentState
from engine.vllm_server import vllm_process
from registry.blobs import blob_stores
from registry.database import db
from service.housekeeping import janitor
from tests.assembler import tiny_mixes
from tests.service.conftest import serving
from tests.service.housekeeping.test_measures import measured
from tests.service.upstream import Upstream, deploy

DASHBOARD = Path(__file__).parents[3] / "docker" / "grafana-dashboard.json"
METRIC = re.compile(r"\b((?:nexusmix|vllm)[a-z_:]+)")


@pytest.fixture
def engine() -> Iterator[str]:
    with serving(Upstream().app) as address:
        yield address


def ready(model: str, *, address: str) -> int:
    """Store a deployment that answers at an address; return its id."""
    deploy(model, DeploymentState.READY, address=address)
    with db.transaction() as session:
        return deployments.find_by_model(session, model).id


def names(text: str) -> set[str]:
    """Return the names of all samples in a text of metrics."""
    families = text_string_to_metric_families(text)
    return {sample.name for family in families for sample in family.samples}


def shown() -> set[str]:
    """Return the names of the metrics that the dashboard asks for."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return {name for expression in expressions for name in METRIC.findall(expression)}


def test_states_are_counted(client: TestClient, engine: str) -> None:
    assert measured(client, 'nexusmix_deployments{state="ready"}') == 0
    ready("mine", address=engine)
    assert measured(client, 'nexusmix_deployments{state="ready"}') == 1
    for state in MixState:
        assert measured(client, f'nexusmix_mix_versions{{state="{state}"}}') == 0
    assert measured(client, 'nexusmix_gated_mix_versions{verdict="passed"}') == 0
    assert measured(client, "nexusmix_workers") == 0


def test_metrics_of_engines_stand_side_by_side(client: TestClient, engine: str) -> None:
    ids = [ready(model, address=engine) for model in ("first", "second")]
    text = client.get("/metrics/engines").text
    for number in ids:
        assert f'vllm:asked_total{{deployment="{number}",model_name="tiny"}} 0.0' in text
    assert text.count("# HELP vllm:asked_total") == 1


def test_an_engine_that_is_gone_is_left_out(client: TestClient, engine: str) -> None:
    ready("gone", address="http://127.0.0.1:9")
    number = ready("here", address=engine)
    text = client.get("/metrics/engines").text
    assert re.findall(r'asked_total{deployment="(\d+)"', text) == [str(number)]


def test_metrics_of_engines_need_a_key(anonymous: TestClient) -> None:
    assert anonymous.get("/metrics/engines").status_code == 401


def test_the_dashboard_shows_metrics_of_the_service(client: TestClient) -> None:
    client.get("/health")
    janitor.collect()
    asked = {name for name in shown() if name.startswith("nexusmix_")}
    assert len(asked) >= 10
    assert asked <= names(client.get("/metrics").text)


@pytest.mark.long
def test_the_dashboard_shows_metrics_of_engines(client: TestClient, home: Path) -> None:
    blobs = blob_stores.store()
    mix = tiny_mixes.store_mix(blobs)
    with vllm_process.serving(mix, blobs=blobs, log_path=home / "server.log") as running:
        running.wait_ready()
        running.warm_up()
        ready("tiny", address=running.address)
        answered = names(client.get("/metrics/engines").text)
    asked = {name for name in shown() if not name.startswith("nexusmix_")}
    assert len(asked) >= 6
    assert asked <= answered
