"""Reads the options of an engine from a request, and refuses every wrong one in one answer."""

from collections.abc import Mapping
from typing import Any

from assembler.recipes import field_changes
from engine.vllm_server import option_checks
from engine.vllm_server.engine_options import EngineOptions
from engine.vllm_server.option_checks import AT, REFUSED
from registry.blobs.blobs import BlobStore
from registry.checkpoints import manifests
from registry.errors import Problem, RefusedOptions

MAX_SHOWN = 80


def read(fields: Mapping[str, Any], manifest_digest: str, blobs: BlobStore) -> EngineOptions:
    """Return the options in `fields`, which fit the checkpoint of a manifest.

    Raises RefusedOptions that names each wrong field, its value, and what would be right.
    """
    manifest = manifests.load(blobs, manifest_digest)
    options, mistakes = field_changes.read(EngineOptions, {}, fields, at=AT)
    problems = [_with_value(problem, fields) for problem in mistakes]
    problems += option_checks.problems(options, manifest)
    problems += option_checks.template_problems(options, manifest, blobs)
    if problems:
        raise RefusedOptions(REFUSED, problems=tuple(problems))
    return options


def _with_value(problem: Problem, fields: Mapping[str, Any]) -> Problem:
    """Return a problem whose text begins with the value, if the field exists."""
    value: Any = fields
    for step in problem.pointer.split("/")[2:]:
        value = value.get(step) if isinstance(value, Mapping) else None
    if problem.detail.startswith("is no field"):
        return problem
    shown = repr(value)
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
    return Problem(problem.pointer, f"is {shown}: {problem.detail}")
