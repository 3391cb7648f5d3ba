"""A search for zeros gives a curve, a chosen point, and the tensors of that point."""

from typing import Any

import pytest
import torch

from assembler.compression.sparsify import Sparsifier
from assembler.network import network_runner
from assembler.network.model import Network
from engine.compression.sparsity_curve import Sparsification
from engine.divergence.aggregates import summarize
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput
from tests import tiny
from tests.assembler import tiny_mixes


def sparsifier(
    manifest: Manifest, blobs: LocalBlobs, *, domains: int = 1, **request: Any
) -> Sparsifier:
    fields = {"prompts": 8, "prefix_tokens": 6, "completion_tokens": 12, "step": 0.3} | request
    return Sparsifier(
        manifest,
        [tiny.sample_documents(expert=number + 1) for number in range(domains)],
        Sparsification(**fields),
        blobs=blobs,
        on_progress=lambda text: None,
    )


def test_the_written_checkpoint_has_the_requested_share(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    made = sparsifier(manifest, blobs, share=0.5, keep_zeros=True)
    curve = made.curve()
    assert [point.share for point in curve.points] == pytest.approx([0, 0.3, 0.5])
    assert curve.points[0].num_bytes == manifest.num_bytes
    sparse = made.write(curve.chosen)
    assert sparse.num_stored_bytes == curve.chosen.num_bytes < manifest.num_bytes
    assert sparse.num_bytes == manifest.num_bytes
    network = Network.from_manifest(sparse, blobs, dtype=torch.float32)
    summary = summarize(made.probe.texts, network_runner.runner(network).read(made.probe.texts))
    assert summary.fdt.p75 == curve.chosen.fdt_75
    assert summary.perplexity == pytest.approx(curve.chosen.dppl)


def test_a_search_by_quality_ends_where_it_is_lost(blobs: LocalBlobs) -> None:
    curve = sparsifier(tiny.store_manifest(blobs), blobs, share=1, min_fdt_75=12).curve()
    floor = curve.points[0].fdt_75
    assert all(point.fdt_75 >= min(12, floor) for point in curve.points[:-1])
    assert curve.chosen.fdt_75 >= min(12, floor)


def test_the_retrained_checkpoint_is_the_measured_one(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    made = sparsifier(manifest, blobs, share=0.5, retrain_tokens=2048, keep_zeros=True)
    curve = made.curve()
    assert [point.share for point in curve.points] == pytest.approx([0, 0.3, 0.5])
    sparse = made.write(curve.chosen)
    network = Network.from_manifest(sparse, blobs, dtype=torch.float32)
    summary = summarize(made.probe.texts, network_runner.runner(network).read(made.probe.texts))
    assert summary.perplexity == pytest.approx(curve.chosen.dppl)
    unlearned = sparsifier(manifest, blobs, share=0.5, by="uniform", keep_zeros=True)
    assert curve.chosen.perplexity < unlearned.point(curve.chosen.shares).perplexity


def test_a_lost_quality_gives_the_last_good_checkpoint(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    made = sparsifier(
        manifest,
        blobs,
        share=0.9,
        step=0.05,
        min_fdt_75=12,
        retrain_tokens=512,
        keep_zeros=True,
    )
    curve = made.curve()
    assert len(curve.points) > 2
    assert curve.chosen == curve.points[-2] != curve.points[0]
    network = Network.from_manifest(made.write(curve.chosen), blobs, dtype=torch.float32)
    summary = summarize(made.probe.texts, network_runner.runner(network).read(made.probe.texts))
    assert summary.perplexity == pytest.approx(curve.chosen.dppl)


def test_all_experts_of_a_mix_become_sparse(blobs: LocalBlobs) -> None:
    mix = tiny_mixes.store_mix(blobs)
    made = sparsifier(mix, blobs, domains=3, share=0.6, step=0.6)
    sparse = made.write(made.curve().chosen)
    changed = {name for name, entry in sparse.tensors.items() if entry != mix.tensors[name]}
    assert {c.name + ".weight" for c in made.components} >= changed
    parts = ("self_attn.", "shared_expert.", "experts.0.", "experts.1.", "experts.2.")
    assert all(any(part in name for name in changed) for part in parts)


def test_empty_parts_are_removed(blobs: LocalBlobs) -> None:
    """Everything is removed except one attention, since a network cannot be served without any."""
    manifest = tiny.store_manifest(blobs)
    made = sparsifier(manifest, blobs, share=1, step=1)
    architecture = made.write(made.curve().chosen).architecture
    assert architecture.ffn_sizes == (0, 0)
    assert architecture.layers_without_attention == (1,)


def test_too_little_text_is_refused(blobs: LocalBlobs) -> None:
    with pytest.raises(InvalidInput, match="at least 4 are needed"):
        sparsifier(tiny.store_manifest(blobs), blobs, share=0.5, prefix_tokens=800)


def test_too_little_training_text_is_refused(blobs: LocalBlobs) -> None:
    request = Sparsification(
        share=0.5, prompts=4, prefix_tokens=6, completion_tokens=12, retrain_tokens=128
    )
    held_out = [d for d in tiny.sample_documents(expert=1) if d.split == "held-out"]
    with pytest.raises(InvalidInput, match="too little text to finetune on"):
        Sparsifier(
            tiny.store_manifest(blobs),
            [held_out],
            request,
            blobs=blobs,
            on_progress=lambda text: None,
        )
