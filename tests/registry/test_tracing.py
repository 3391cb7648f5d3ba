"""Spans reach the collector that the environment names, and nothing is loaded without one."""

import os
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from registry import tracing
from registry.errors import InvalidInput
from tests.otlp_collector import collecting

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"

PROGRAM = f"""
from registry import tracing
tracing.configure("worker")
try:
    with tracing.span("outer", parent={{"traceparent": "00-{TRACE}-{CALLER}-01"}}):
        print(tracing.headers()["traceparent"])
        with tracing.span("inner", attributes={{"nexusmix.step": "gate"}}):
            raise ValueError("no")
except ValueError:
    pass
"""
OFF = """
import sys
from registry import tracing
tracing.configure("web")
with tracing.span("nothing") as span:
    print(span, tracing.headers(), any(name.startswith("opentelemetry") for name in sys.modules))
"""


def run(program: str, **variables: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=env | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_spans_continue_the_trace_of_their_parent() -> None:
    with collecting() as collector:
        printed = run(PROGRAM, OTEL_EXPORTER_OTLP_ENDPOINT=collector.address)
    outer, inner = collector.wait_for("outer"), collector.wait_for("inner")
    assert (outer.service, outer.trace_id, outer.parent_id) == ("nexusmix-worker", TRACE, CALLER)
    assert (inner.trace_id, inner.parent_id) == (TRACE, outer.span_id)
    assert printed == f"00-{TRACE}-{outer.span_id}-01"


def test_an_error_marks_its_span() -> None:
    with collecting() as collector:
        run(PROGRAM, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.address}/v1/traces")
    inner = collector.wait_for("inner")
    assert inner.is_error
    assert inner.attributes["nexusmix.step"] == "gate"


def test_a_collector_that_is_away_ends_nothing() -> None:
    with collecting() as collector:
        address = collector.address
    assert run(
        PROGRAM, OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_EXPORTER_OTLP_TIMEOUT="1"
    ).startswith(f"00-{TRACE}")


@pytest.mark.parametrize(
    "variables",
    [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}],
    ids=["unset", "disabled"],
)
def test_nothing_is_loaded_without_a_collector(variables: dict[str, str]) -> None:
    assert run(OFF, **variables) == "None {} False"


def test_a_protocol_that_is_not_sent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(InvalidInput, match=r"PROTOCOL is 'grpc'.*4318"):
        tracing.collector()


def test_the_address_of_traces_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318/")
    assert tracing.collector() == "http://127.0.0.1:4318/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/own")
    assert tracing.collector() == "http://127.0.0.1:9/own"


def test_an_answer_of_failure_marks_its_span(spans: InMemorySpanExporter) -> None:
    with tracing.span("request", kind="server") as span:
        assert span is not None
        tracing.mark_failed(span)
    [ended] = spans.get_finished_spans()
    assert not ended.status.is_ok
