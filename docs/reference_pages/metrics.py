"""The page of the metrics: what gates measure, and what the service counts about itself."""

from collections.abc import Iterator

from prometheus_client import REGISTRY

from engine.gates.mix_gate import GateReport
from engine.gates.policy import STAGES, Policy
from reference_pages import json_schema, markdown
from service.api import work_measures
from service.housekeeping import measures
from service.web import middleware

GATE = """\
A gate compares texts token by token. The reference continues a prefix greedily; the candidate
reads that text once. The limits of each stage are fields of the [policy](recipe.md#policy).

In the report of a mix a metric has its stage before its name, as in `served.fdt_75`."""

SERVICE = """\
`/metrics` answers in the format of Prometheus. Besides the metrics below it has those that the
Prometheus client measures in every Python process: `process_*` and `python_*`.

`/metrics/engines` answers with what the engines of this host measure: `vllm:*`, and
`nexusmix:expert_tokens_total`, the tokens of each expert by the weight of its part. The label
`deployment` tells engines apart."""

LIMITS = {"min": "at least", "max": "at most"}


def text() -> str:
    return markdown.page(
        "# Metrics",
        "## Gate",
        markdown.paragraph(GATE),
        markdown.table(("metric", "limit", "stages", "meaning"), _gate_metrics()),
        "## Stages of the gate",
        markdown.table(("stage", "what it compares"), _stages()),
        "## Service",
        markdown.paragraph(SERVICE),
        markdown.table(("metric", "type", "meaning"), _service_metrics()),
        "## Gate report",
        *_report(),
    )


def gate_metrics() -> dict[str, dict[str, str]]:
    """Return the meaning of every metric in each of its stages: metric -> stage -> text.

    A metric has the name of its limit without `min_` and `max_`.
    """
    found: dict[str, dict[str, str]] = {}
    for stage in STAGES:
        for name, field in type(getattr(Policy(), stage)).model_fields.items():
            found.setdefault(name, {})[stage] = field.description or ""
    return found


def service_metrics() -> dict[str, tuple[str, str]]:
    """Return type and meaning of every metric of nexusmix that `/metrics` answers with."""
    # Importing the modules registers them.
    assert middleware.REQUESTS
    assert measures.STARTED
    assert work_measures.MIXES
    return {
        metric.name: (metric.type, metric.documentation)
        for metric in REGISTRY.collect()
        if metric.name.startswith("nexusmix_")
    }


def _gate_metrics() -> Iterator[tuple[str, ...]]:
    for limit, by_stage in gate_metrics().items():
        kind, _, metric = limit.partition("_")
        stages_of: dict[str, list[str]] = {}
        for stage, meaning in by_stage.items():
            stages_of.setdefault(meaning, []).append(stage)
        for meaning, stages in stages_of.items():
            yield (
                markdown.code(metric),
                f"{LIMITS[kind]} {markdown.code(limit)}",
                ", ".join(stages),
                meaning,
            )


def _stages() -> Iterator[tuple[str, str]]:
    for stage in STAGES:
        yield markdown.code(stage), Policy.model_fields[stage].description or ""


def _service_metrics() -> Iterator[tuple[str, ...]]:
    for name, (kind, meaning) in service_metrics().items():
        # The client adds the ending when it answers.
        yield markdown.code(f"{name}_total" if kind == "counter" else name), kind, meaning


def _report() -> Iterator[str]:
    schema = GateReport.model_json_schema()
    yield json_schema.fields(schema, link=_link)
    for name, definition in schema["$defs"].items():
        if name not in POLICY_MODELS:
            yield f"### {name}"
            yield markdown.paragraph(str(definition.get("description", "")))
            yield json_schema.fields(definition, link=_link)


# They stand on the page of the recipe.
POLICY_MODELS = {"Policy", *Policy.model_json_schema()["$defs"]}


def _link(name: str) -> str:
    page = "recipe.md" if name in POLICY_MODELS else ""
    return f"[{name}]({page}#{name.lower()})"
