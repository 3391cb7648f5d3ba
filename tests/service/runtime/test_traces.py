"""One trace leads from a request through the jobs and the engine that answer it."""

import zlib
from pathlib import Path

import openai
import pytest

from assembler.tables import MixState
from engine.vllm_server import vllm_process
from registry import settings
from registry.blobs import blob_stores
from registry.database import db
from service.client.client import Client
from tests.assembler import rows
from tests.assembler.workers import LENIENT
from tests.otlp_collector import collecting
from tests.service.services import serving, wait_for

# The product's own limit for a server to start, and time for a mix.
PATIENCE_SECONDS = vllm_process.START_SECONDS + 120


@pytest.mark.slow
def test_a_mix_and_a_chat_are_traced_to_their_ends(
    servers: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Outside pytest's folder, with a short name: the database and sockets need that.
    home = servers / f"traces-{zlib.crc32(request.node.name.encode()):x}"
    monkeypatch.setenv("NEXUSMIX_HOME", str(home))
    with collecting() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        with serving(home, own=variables) as service:
            monkeypatch.setenv("NEXUSMIX_DATABASE_URL", service.database_url)
            settings.settings.cache_clear()
            with db.transaction() as session:
                rows.add_all(session, blob_stores.store())
            db.close()
            key = (home / "api-key").read_text().strip()
            with Client(service.address, key=key) as client:
                mix = client.request_mix(
                    name="mine",
                    family="tiny",
                    experts=["expert-1", "expert-2"],
                    finetune={"tokens": 0},
                    gates=LENIENT.model_dump(),
                    deploy=True,
                )
                assert client.wait_for_mix(mix).state == MixState.SUCCEEDED
                wait_for(
                    lambda: any(row.state == "ready" for row in client.deployments()),
                    "the engine",
                    seconds=PATIENCE_SECONDS,
                )
            with openai.OpenAI(base_url=f"{service.address}/v1", api_key=key) as speaker:
                speaker.completions.create(model="mine", prompt="one", max_tokens=2)
            chat = collector.wait_for("POST /v1/completions")
            engine = collector.wait_for("llm_request", service="nexusmix-engine")
            assert (engine.trace_id, engine.parent_id) == (chat.trace_id, chat.span_id)
            asked = collector.wait_for("POST /api/v1/mixes")
            for step in ("assemble", "gate", "publish"):
                span = collector.wait_for(f"step {step}", service="nexusmix-worker")
                assert (span.trace_id, span.parent_id) == (asked.trace_id, asked.span_id)
                assert span.attributes["nexusmix.job.id"] == "mix-mine-1"
