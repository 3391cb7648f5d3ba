"""A collector of traces for tests: takes what OTLP exporters send by HTTP, and keeps the spans."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from tests.service.services import wait_for

ERROR = 2


@dataclass(frozen=True)
class Span:
    """A span as a collector gets it; ids are in hexadecimal."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    is_error: bool
    attributes: dict[str, str | int | float | bool]


@dataclass
class Collector:
    """The address of a running collector and what has arrived."""

    address: str
    spans: list[Span] = field(default_factory=list)

    def wait_for(self, name: str, *, service: str = "") -> Span:
        """Wait for a span whose name begins so, and return it."""
        wait_for(lambda: self._find(name, service) is not None, f"the span {name!r}")
        found = self._find(name, service)
        assert found is not None
        return found

    def _find(self, name: str, service: str) -> Span | None:
        spans = [span for span in self.spans if span.name.startswith(name)]
        return next((span for span in spans if span.service.endswith(service)), None)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing beside the tests' own output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _spans(sent: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in sent.resource_spans:
        about = _values(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=str(about["service.name"]),
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    is_error=span.status.code == ERROR,
                    attributes=_values(span.attributes),
                )


def _values(pairs: "list[KeyValue]") -> dict[str, str | int | float | bool]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> str | int | float | bool:
    found: str | int | float | bool = getattr(value, value.WhichOneof("value") or "string_value")
    return found
