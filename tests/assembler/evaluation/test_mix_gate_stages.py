"""Other versions of a mix read its texts; a base reads only those of its own domains."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from assembler.evaluation import mix_gate_stages
from assembler.evaluation.perplexities import GateCheckpoints
from assembler.network import network_runner
from engine.divergence.metrics import Continuation
from registry.blobs.blobs import LocalBlobs
from tests import tiny
from tests.assembler import tiny_mixes

NAMES = ("expert-1", "expert-2", "expert-3")
NUM_TOKENS = 6


@pytest.fixture
def checkpoints(blobs: LocalBlobs) -> GateCheckpoints:
    """Make a mix of three experts that extends a mix of two."""
    return GateCheckpoints(
        seed=tiny.store_manifest(blobs),
        experts={name: tiny.store_manifest(blobs, expert=i + 1) for i, name in enumerate(NAMES)},
        assembled=tiny_mixes.store_mix(blobs),
        finetuned=None,
        base=tiny_mixes.store_mix(blobs, experts=(1, 2)),
        base_domains=frozenset(NAMES[:2]),
    )


def texts_of(checkpoints: GateCheckpoints, blobs: LocalBlobs) -> dict[str, Sequence[Continuation]]:
    """Let the candidate write one text in each domain."""
    runner = network_runner.of_manifest(checkpoints.candidate, blobs)
    return {
        name: runner.write([tuple(range(3 + number, 9 + number))], num_tokens=NUM_TOKENS)
        for number, name in enumerate(checkpoints.experts)
    }


def test_the_base_reads_texts_of_its_own_domains(
    checkpoints: GateCheckpoints, blobs: LocalBlobs
) -> None:
    texts = texts_of(checkpoints, blobs)
    readings = mix_gate_stages.readings_of_other_mixes(checkpoints, texts, blobs)
    assert {name: list(variations) for name, variations in readings.items()} == {
        "expert-1": ["base"],
        "expert-2": ["base"],
        "expert-3": [],
    }
    assert checkpoints.base is not None
    base = network_runner.of_manifest(checkpoints.base, blobs)
    assert readings["expert-1"]["base"] == base.read(texts["expert-1"])


def test_the_mix_before_its_finetune_reads_the_texts(
    checkpoints: GateCheckpoints, blobs: LocalBlobs
) -> None:
    finetuned = tiny_mixes.store_mix(blobs, combine="sum")
    tuned = replace(checkpoints, finetuned=finetuned, base=None)
    texts = texts_of(tuned, blobs)
    readings = mix_gate_stages.readings_of_other_mixes(tuned, texts, blobs)
    assert all(list(stages) == ["finetuned"] for stages in readings.values())
    before = network_runner.of_manifest(checkpoints.assembled, blobs)
    assert readings["expert-3"]["finetuned"] == before.read(texts["expert-3"])


def test_both_sides_have_digests(checkpoints: GateCheckpoints, blobs: LocalBlobs) -> None:
    sides = mix_gate_stages.sides(checkpoints)
    assert list(sides) == ["assembled", "candidate", "served", "base"]
    assert sides["candidate"].against == {
        "seed": checkpoints.seed.digest,
        **{f"expert {name}": manifest.digest for name, manifest in checkpoints.experts.items()},
    }
    assert checkpoints.base is not None
    assert sides["base"].against == {"the version before": checkpoints.base.digest}
