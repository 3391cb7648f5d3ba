"""OpenTelemetry traces: every process sends its spans to the collector of the standard variables.

Nothing is loaded or sent until `OTEL_EXPORTER_OTLP_ENDPOINT` or
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names a collector. The SDK reads the other variables itself:
sampler, headers, time limits, attributes of the resource.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from registry.errors import InvalidInput

if TYPE_CHECKING:
    from opentelemetry.trace import Span

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
# The only protocol that all our processes send.
PROTOCOL = "http/protobuf"
DISABLED = "OTEL_SDK_DISABLED"
NAMESPACE = "nexusmix"

Attributes = Mapping[str, str | int | float]

_is_on = False


def collector() -> str | None:
    """Return the address that takes spans; None if the environment names none.

    Raises InvalidInput for a protocol that is not sent here.
    """
    if os.environ.get(DISABLED, "").lower() == "true":
        return None
    base = os.environ.get(ENDPOINT)
    address = os.environ.get(TRACES_ENDPOINT) or (base and f"{base.rstrip('/')}/v1/traces")
    if not address:
        return None
    for name in PROTOCOLS:
        if os.environ.get(name, PROTOCOL) != PROTOCOL:
            raise InvalidInput(
                f"{name} is {os.environ[name]!r}, but traces are sent by {PROTOCOL}:"
                " leave it out, and name the collector's port for HTTP, usually 4318"
            )
    return address


def configure(process: str) -> None:
    """Send the spans of this process from now on, if the environment names a collector.

    `process` (web, worker) is part of the name of the service. Spans are sent in batches by a
    thread; the last batch is sent when the process ends. A collector that does not answer costs a
    line in the log.
    """
    global _is_on
    address = collector()
    if address is None:
        return
    # These load for a third of a second, and most installations send no traces.
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.name": service_name(process), "service.namespace": NAMESPACE}
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
    trace.set_tracer_provider(provider)
    _is_on = True


def service_name(process: str) -> str:
    """Return the name of a process in traces."""
    return f"{NAMESPACE}-{process}"


def is_on() -> bool:
    """Tell whether this process sends spans."""
    return _is_on


@contextmanager
def span(
    name: str,
    *,
    parent: Mapping[str, str] | None = None,
    kind: Literal["internal", "server"] = "internal",
    attributes: Attributes | None = None,
) -> Iterator["Span | None"]:
    """Record a span around a block, with the error that ends it; yield None where traces are off.

    `parent` has the headers of W3C Trace Context. Without them the span belongs to the current one.
    """
    if not _is_on:
        yield None
        return
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    with trace.get_tracer(NAMESPACE).start_as_current_span(
        name,
        context=TraceContextTextMapPropagator().extract(parent) if parent else None,
        kind=trace.SpanKind.SERVER if kind == "server" else trace.SpanKind.INTERNAL,
        attributes=attributes,
    ) as current:
        yield current


def mark_failed(span: "Span") -> None:
    """Mark a span whose work has failed without an error in this process."""
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)


def headers() -> dict[str, str]:
    """Return the headers of W3C Trace Context that make another process continue this trace."""
    carrier: dict[str, str] = {}
    if _is_on:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(carrier)
    return carrier
