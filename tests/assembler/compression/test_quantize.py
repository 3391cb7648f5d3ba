"""An int8 search gives a curve, a chosen point, and the tensors of that point.

Covers: probe.
"""

from typing import Any

import pytest
import torch

from assembler.compression.quantize import Compressor
from assembler.network import network_runner
from assembler.network.model import Network
from engine.compression.int8_curve import Compression
from engine.divergence.aggregates import summarize
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput
from tests import tiny
from tests.assembler import networks, tiny_mixes


def compressor(
    manifest: Manifest, blobs: LocalBlobs, *, domains: int = 1, **request: Any
) -> Compressor:
    fields = {"prompts": 8, "prefix_tokens": 6, "completion_tokens": 12, "rounds": 3} | request
    return Compressor(
        manifest,
        [tiny.sample_documents(expert=number + 1) for number in range(domains)],
        Compression(**fields),
        blobs=blobs,
        on_progress=lambda text: None,
    )


def test_the_written_checkpoint_has_the_requested_quality(blobs: LocalBlobs) -> None:
    """Without a limit everything becomes int8, and there is no search."""
    manifest = tiny.store_manifest(blobs)
    made = compressor(manifest, blobs, min_fdt_75=0)
    curve = made.curve()
    assert [len(point.units) for point in curve.points] == [0, 6]
    assert curve.points[0].num_bytes == manifest.num_bytes
    compressed = made.write(curve.chosen)
    assert compressed.num_bytes == curve.chosen.num_bytes < manifest.num_bytes
    network = Network.from_manifest(compressed, blobs, dtype=torch.float32)
    summary = summarize(made.probe.texts, network_runner.runner(network).read(made.probe.texts))
    assert summary.fdt.p75 == curve.chosen.fdt_75
    assert summary.perplexity == pytest.approx(curve.chosen.dppl)


def test_a_search_by_quality_ends_where_it_is_lost(blobs: LocalBlobs) -> None:
    """The last point of the curve has everything in int8; it was measured first."""
    manifest = networks.store(blobs, networks.ARCHITECTURES["dense"])
    made = compressor(manifest, blobs, min_fdt_75=60, completion_tokens=60, rounds=1000)
    curve = made.curve()
    *kept, lost, everything = curve.points
    assert len(kept) > 1
    assert all(point.fdt_75 >= 60 for point in kept)
    assert lost.fdt_75 < 60
    assert len(everything.units) == len(made.units)
    assert curve.chosen == kept[-1]


def test_a_search_by_size_ends_where_it_is_reached(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    saved = sum(unit.num_bytes_saved for unit in compressor(manifest, blobs, max_bytes=10**6).units)
    curve = compressor(manifest, blobs, max_bytes=manifest.num_bytes - saved // 2).curve()
    assert curve.chosen == curve.points[-1]
    assert all(p.num_bytes > manifest.num_bytes - saved // 2 for p in curve.points[:-1])


def test_all_domains_of_a_mix_are_measured(blobs: LocalBlobs) -> None:
    mix = tiny_mixes.store_mix(blobs)
    made = compressor(mix, blobs, domains=3, min_fdt_75=0, by="perplexity")
    assert len(made.probe.texts) == 9
    compressed = made.write(made.curve().chosen)
    routed = [name for name in mix.tensors if ".mlp.experts." in name]
    assert all(compressed.tensors[name] == mix.tensors[name] for name in routed)
    assert compressed.num_bytes < mix.num_bytes


def test_too_little_text_is_refused(blobs: LocalBlobs) -> None:
    with pytest.raises(InvalidInput, match="at least 4 are needed"):
        compressor(tiny.store_manifest(blobs), blobs, max_bytes=10**6, prefix_tokens=800)


def test_an_impossible_size_is_refused(blobs: LocalBlobs) -> None:
    with pytest.raises(InvalidInput, match="cannot be so small"):
        compressor(tiny.store_manifest(blobs), blobs, max_bytes=10)
