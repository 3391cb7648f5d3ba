"""Which layers become int8 together, and how many bytes that saves."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from engine.compression import int8_units
from engine.compression.int8_units import units
from registry import cpu_features
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidCheckpoint
from tests import tiny
from tests.assembler import networks
from tests.assembler.networks import ARCHITECTURES


def names(name: str, target: int8_units.Target, blobs: LocalBlobs) -> list[str]:
    """Return the names of the units of the first block and of the head."""
    all_units = units(networks.store(blobs, ARCHITECTURES[name]), target)
    return [unit.name.removeprefix("model.layers.0.") for unit in all_units if unit.layer != 1]


def test_a_dense_block_has_three_units(blobs: LocalBlobs) -> None:
    assert names("dense", "cpu", blobs) == ["self_attn.qkv_proj", "self_attn.o_proj", "mlp"]


def test_fused_projections_are_one_unit(blobs: LocalBlobs) -> None:
    qkv, _, mlp, *_ = units(tiny.store_manifest(blobs), "cpu")
    assert [module.rpartition(".")[2] for module in qkv.modules] == ["q_proj", "k_proj", "v_proj"]
    assert [m.rpartition(".")[2] for m in mlp.modules] == ["gate_proj", "up_proj", "down_proj"]


def test_routed_experts_are_one_unit_and_only_on_gpus(blobs: LocalBlobs) -> None:
    on_cpu = ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.shared_expert"]
    assert names("convex", "cpu", blobs) == on_cpu
    assert names("convex", "gpu", blobs) == [*on_cpu, "mlp.experts"]


def test_an_untied_head_is_a_unit(blobs: LocalBlobs) -> None:
    assert names("untied", "cpu", blobs)[-1] == "lm_head"


def test_attention_experts_are_no_units(blobs: LocalBlobs) -> None:
    assert names("nexus-with-attention", "cpu", blobs) == ["mlp.shared_expert"]
    assert names("bam", "cpu", blobs) == []


def test_bytes_before_and_after(blobs: LocalBlobs) -> None:
    """The query, key and value projections have 128 + 64 + 64 rows of 32 bfloat16 weights."""
    qkv = units(tiny.store_manifest(blobs), "cpu")[0]
    assert (qkv.num_bytes, qkv.num_int8_bytes) == (256 * 32 * 2, 256 * (32 + 4))
    assert qkv.num_bytes_saved == 256 * (32 - 4)


@pytest.mark.parametrize(
    ("target", "flags", "refused"),
    [
        ("cpu", "avx2", False),
        ("cpu-vnni", "avx2", True),
        ("cpu-vnni", "avx2 avx512_vnni", False),
        ("gpu", "avx2", True),
    ],
)
def test_weights_that_overflow_on_this_processor_are_refused(
    target: int8_units.Target,
    flags: str,
    refused: bool,
    blobs: LocalBlobs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags: {flags}\n")
    monkeypatch.setattr(cpu_features, "CPUINFO", tmp_path / "cpuinfo")
    manifest = tiny.store_manifest(blobs)
    int8_units.check_processor(manifest)
    compressed = first_in_int8(manifest, target)
    with pytest.raises(InvalidCheckpoint, match="no VNNI") if refused else nullcontext():
        int8_units.check_processor(compressed)


@pytest.mark.parametrize("target", ["cpu", "cpu-vnni", "gpu"])
def test_int8_layers_are_no_units(target: int8_units.Target, blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    _, *others = units(manifest, target)
    compressed = first_in_int8(manifest, target)
    assert [unit.name for unit in units(compressed, target)] == [unit.name for unit in others]


def first_in_int8(manifest: Manifest, target: int8_units.Target) -> Manifest:
    """Return a manifest that declares its first unit int8, without converting it."""
    entry = next(iter(manifest.tensors.values()))
    weights = dict.fromkeys(units(manifest, target)[0].modules, (replace(entry, dtype="I8"), entry))
    return int8_units.with_int8(manifest, weights, target=target)
