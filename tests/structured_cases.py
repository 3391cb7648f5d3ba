"""Structured inputs of strangers, mostly wrong: headers, manifests, recipes, policies, documents.

Each case is valid text with some parts replaced. Readers must refuse it or read it: any other
error, and time or memory that grows faster than the text, is a fault.
"""

import gc
import json
import math
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from assembler.recipes import field_changes, presets
from engine.gates.policy import Policy
from registry import bounded_json
from registry.catalog import documents
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.safetensors_header import parse_header
from registry.errors import InvalidInput

DIGEST = "0123456789abcdef" * 4
# A reader may need this much more than the text itself: Python objects are large.
MAX_BYTES_PER_BYTE, MAX_BYTES_OF_NOTHING = 400, 4 * 2**20
# Text of twice the length may take this much longer; above 2, since the machine does other work.
MAX_RATIO = 3.5
ROUNDS = 9

ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["\ud83d", "\0", DIGEST, "F32", "1e999", 2**63, -1, [], {}, [[]], "a" * 5000]),
    st.lists(st.integers(0, 4), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)
NAMES = st.sampled_from(
    ["a", "model.layers.0.mlp.up_proj.weight", "__metadata__", "", "\ud83d", "é"]
)


def _entry(start: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 3], "data_offsets": [start, start + 24]}


HEADERS = st.dictionaries(
    NAMES | st.text(max_size=10),
    st.builds(_entry, st.sampled_from([0, 24, 48]))
    | st.fixed_dictionaries({}, optional=dict.fromkeys(_entry(0), ODD)),
    max_size=4,
)
SOUND_MANIFESTS = st.fixed_dictionaries(
    {
        "config": st.dictionaries(st.sampled_from("ab"), st.integers(0, 9)),
        "files": st.dictionaries(st.sampled_from("ab"), st.just(DIGEST)),
        "tensors": st.dictionaries(st.sampled_from("ab"), st.just(["F32", [2, 3], DIGEST])),
    }
)
MANIFESTS = SOUND_MANIFESTS | st.fixed_dictionaries(
    {},
    optional={
        "config": st.dictionaries(NAMES, ODD, max_size=4) | ODD,
        "files": st.dictionaries(NAMES, st.just(DIGEST) | ODD, max_size=3) | ODD,
        "tensors": st.dictionaries(
            NAMES,
            st.tuples(st.just("F32") | ODD, st.just([2, 3]) | ODD, st.just(DIGEST) | ODD) | ODD,
            max_size=3,
        )
        | ODD,
    },
)


def _changes(schema: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(schema, ODD)
    nested = st.dictionaries(st.sampled_from(sorted({*NESTED, *schema})), ODD, max_size=3)
    return st.fixed_dictionaries({}, optional=fields | {"nobody": ODD, "served": nested})


NESTED = ("min_fdt_75", "max_dppl_ratio", "min_equal_share", "max_perplexity_ratio")
POLICIES = _changes(Policy.model_fields)
RECIPES = st.fixed_dictionaries(
    {
        "assembly": _changes(presets.assembly("nexus").model_dump()),
        "finetune": _changes(presets.finetune("nexus", num_experts=2).model_dump()),
        "compress": _changes({"max_bytes": 1, "min_fdt_75": 1, "rounds": 1, "prompts": 1}),
    }
)
LINES = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=3) | ODD,
        "text": st.text(max_size=30) | ODD,
        "split": st.sampled_from(["train", "held-out"]) | ODD,
        "domain": st.text(max_size=3) | ODD,
    },
)


def _sound_lines(ids: list[int]) -> list[dict[str, Any]]:
    splits = ("train", "held-out")
    return [{"id": str(n), "text": f"t {n}", "split": splits[n % 2]} for n in [0, 1, *ids]]


SOUND_DOCUMENTS = st.lists(st.integers(2, 99), unique=True, max_size=4).map(_sound_lines)
DOCUMENTS = SOUND_DOCUMENTS | st.lists(LINES, max_size=5)


def read_header(raw: bytes) -> None:
    text = raw.decode(errors="replace")
    parse_header(text, file_size=8 + len(raw) + 24, file="m.safetensors")


def read_manifest(raw: bytes) -> None:
    manifest = Manifest.from_json(raw)
    assert Manifest.from_json(manifest.to_json()) == manifest


def read_recipe(raw: bytes) -> None:
    """Read the parts of a request for a mix, as a route does after it has read the JSON."""
    request = bounded_json.parse(raw)
    if isinstance(request, dict):
        parts = [request.get(part) for part in ("assembly", "finetune", "compress")]
        assembly, finetune, compress = (p if isinstance(p, dict) else {} for p in parts)
        presets.read_assembly("nexus", assembly)
        presets.read_finetune("nexus", finetune, num_experts=2)
        presets.read_compression(compress)


def read_policy(raw: bytes) -> None:
    changes = bounded_json.parse(raw)
    if isinstance(changes, dict):
        policy, _ = field_changes.read(Policy, {}, changes)
        assert Policy.model_validate_json(policy.model_dump_json()) == policy


def read_documents(raw: bytes) -> None:
    read = documents.parse([raw[:7], raw[7:]])
    documents.check_expert_documents(read)
    assert documents.parse([documents.serialize(read)]) == read


def _lines(rows: list[Any]) -> bytes:
    return b"\n".join(_json(row) for row in rows)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


@dataclass(frozen=True)
class Kind:
    """What is read: the cases, how they are written, the reader, and a text of any length."""

    cases: st.SearchStrategy[Any]
    write: Callable[[Any], bytes]
    read: Callable[[bytes], None]
    of_length: Callable[[int], bytes]


def _repeated_header(count: int) -> bytes:
    entry = json.dumps(_entry(0))
    names = ", ".join(f'"{number}": {entry}' for number in range(count))
    return ("{" + names + f', "{count - 1}": {entry}' + "}").encode()


def _large_manifest(count: int) -> bytes:
    tensors = {str(number): ["F32", [2, 3], DIGEST] for number in range(count)}
    return _json({"config": {}, "files": {}, "tensors": tensors})


def _large_documents(count: int) -> bytes:
    rows = [{"id": str(n), "text": "t" * 70, "split": "train"} for n in range(count)]
    return _lines([*rows, {"id": "0", "text": "t", "split": "held-out"}])


def _many_fields(count: int) -> bytes:
    return _json({"assembly": {f"f{number}": number for number in range(count)}})


KINDS: Mapping[str, Kind] = {
    "headers": Kind(HEADERS, _json, read_header, _repeated_header),
    "manifests": Kind(MANIFESTS, _json, read_manifest, _large_manifest),
    "recipes": Kind(RECIPES, _json, read_recipe, _many_fields),
    "policies": Kind(POLICIES, _json, read_policy, lambda count: _many_fields(count)[13:-1]),
    "documents": Kind(DOCUMENTS, _lines, read_documents, _large_documents),
}


def attempt(kind: Kind, raw: bytes) -> bool:
    """Read a case, and return whether it was read. Every error but a refusal goes on."""
    try:
        kind.read(raw)
    except InvalidInput as error:
        # A person must be able to print the refusal.
        error.detail.encode()
        return False
    return True


def run(name: str, *, cases: int) -> tuple[int, int]:
    """Read `cases` cases of a kind, some of them cut off. Returns how many were read and refused.

    Raises what a reader raises besides a refusal.
    """
    kind, counts = KINDS[name], {True: 0, False: 0}

    @seed(31)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(kind.cases, st.none() | st.integers(0, 200))
    def check(case: Any, end: int | None) -> None:
        counts[attempt(kind, kind.write(case)[:end])] += 1

    check()
    return counts[True], counts[False]


def peak_bytes(kind: Kind, raw: bytes) -> int:
    """Return how many bytes of Python objects a reader needs at most."""
    tracemalloc.start()
    try:
        attempt(kind, raw)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def ratio(kind: Kind, raw: bytes, other: bytes) -> float:
    """Return the processor time that a reader needs for `raw`, divided by that for `other`.

    The texts take turns, and the least time of each counts: other work of the machine makes a
    reader slower for a while, and never faster. Python's garbage collector stands still: its time
    depends on all objects of the process.
    """
    taken: dict[bytes, float] = {raw: math.inf, other: math.inf}
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for text in taken:
                began = time.process_time()
                attempt(kind, text)
                taken[text] = min(taken[text], time.process_time() - began)
    finally:
        gc.enable()
    return taken[raw] / taken[other]
