"""Shares of zeros are chosen with the least loss, by formula and by search on a tiny network."""

from dataclasses import replace

import pytest
import torch

from assembler.compression.pruning import as_pruned
from assembler.compression.share_search import ShareSearch, least_losing, limits_of
from assembler.network import network_runner
from assembler.network.model import Network
from engine.compression import sparsity_components
from engine.compression.sparsity_components import Component, total_share
from engine.compression.sparsity_curve import By
from engine.divergence.aggregates import summarize
from engine.divergence.metrics import Continuation
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from tests import tiny
from tests.assembler import networks

SMALL, LARGE = Component("small", 0, 100), Component("large", 1, 300)
COMPONENTS = (SMALL, LARGE)
FRAGILE = "model.layers.1.mlp.down_proj"


NOTHING = {"small": 0.0, "large": 0.0}
ALL = {"small": 1.0, "large": 1.0}


def test_the_next_weight_costs_the_same_everywhere() -> None:
    """The losses per weight at a share of one are 3 and 1, and their weighted mean is 1.5.

    Averaged with that mean they are 2.25 and 1.25, so the large component gets 1.8 times the share.
    """
    losses = {"small": 300.0, "large": 300.0}
    shares = least_losing(COMPONENTS, NOTHING, ALL, losses, total=0.32)
    assert shares == pytest.approx({"small": 0.2, "large": 0.36})


def test_shares_stay_within_their_limits() -> None:
    shares, limits = {"small": 0.5, "large": 0.1}, {"small": 0.8, "large": 0.4}
    for losses in ({"small": 9.0, "large": 0.1}, {"small": 0.1, "large": 9.0}):
        found = least_losing(COMPONENTS, shares, limits, losses, total=0.4)
        assert total_share(COMPONENTS, found) == pytest.approx(0.4)
        assert all(shares[name] <= found[name] <= limits[name] for name in found)


def test_a_component_without_loss_is_not_zero_completely() -> None:
    shares = least_losing(COMPONENTS, NOTHING, ALL, {"small": -1.0, "large": 1.0}, total=0.3)
    assert 0.3 < shares["small"] < 1


def test_without_positive_losses_shares_are_equal() -> None:
    shares = least_losing(COMPONENTS, NOTHING, ALL, {"small": 0.0, "large": -1.0}, total=0.3)
    assert shares == pytest.approx({"small": 0.3, "large": 0.3})


def test_limits_allow_the_total_if_some_components_are_zero() -> None:
    assert limits_of(COMPONENTS, NOTHING, total=0.2) == pytest.approx({"small": 0.3, "large": 0.3})
    limits = limits_of(COMPONENTS, {"small": 0.1, "large": 1.0}, total=0.95)
    assert total_share(COMPONENTS, limits) >= 0.95


@pytest.fixture
def manifest(blobs: LocalBlobs) -> Manifest:
    """Make random weights; the output of `FRAGILE` is much larger than that of other parts."""
    manifest = networks.store(blobs, tiny.ARCHITECTURE)
    name = FRAGILE + ".weight"
    weight = tensors.write(blobs, tensors.read(blobs, manifest.tensors[name]) * 8)
    return replace(manifest, tensors=manifest.tensors | {name: weight})


@pytest.fixture
def network(manifest: Manifest, blobs: LocalBlobs) -> Network:
    return Network.from_manifest(manifest, blobs, dtype=torch.float32)


@pytest.fixture
def texts(network: Network) -> list[Continuation]:
    generator = torch.Generator().manual_seed(2)
    prompts = torch.randint(64, (32, 6), generator=generator)
    return network_runner.runner(network).write(list(map(tuple, prompts.tolist())), num_tokens=12)


def search(network: Network, manifest: Manifest, texts: list[Continuation], by: By) -> ShareSearch:
    components = sparsity_components.components(manifest)
    return ShareSearch(network, components, texts, by=by, on_progress=lambda text: None)


@pytest.mark.parametrize("by", ["fdt", "dppl"])
def test_totals_are_reached_and_zeros_stay(
    by: By, network: Network, manifest: Manifest, texts: list[Continuation]
) -> None:
    components = sparsity_components.components(manifest)
    before = dict.fromkeys((c.name for c in components), 0.0)
    for total, shares in zip(
        (0.2, 0.5, 1.0), search(network, manifest, texts, by).rounds((0.2, 0.5, 1.0)), strict=True
    ):
        assert total_share(components, shares) == pytest.approx(total)
        assert all(before[name] <= shares[name] <= 1 for name in before)
        before = shares


def test_a_fragile_component_keeps_more_weights(
    network: Network, manifest: Manifest, texts: list[Continuation]
) -> None:
    shares = next(search(network, manifest, texts, "fdt").rounds([0.3]))
    assert shares[FRAGILE] < 0.3
    assert shares[FRAGILE] <= min(s for n, s in shares.items() if n.endswith("down_proj"))


def test_found_shares_diverge_later_than_equal_shares(
    network: Network, manifest: Manifest, texts: list[Continuation]
) -> None:
    fdt = {}
    by: By
    for by in ("fdt", "uniform"):
        with as_pruned(network, next(search(network, manifest, texts, by).rounds([0.3]))):
            fdt[by] = summarize(texts, network_runner.runner(network).read(texts)).fdt.mean
    assert fdt["fdt"] > fdt["uniform"]


def test_equal_shares_are_not_searched(
    network: Network, manifest: Manifest, texts: list[Continuation]
) -> None:
    heard: list[str] = []
    found = ShareSearch(
        network,
        sparsity_components.components(manifest),
        texts,
        by="uniform",
        on_progress=heard.append,
    ).rounds([0.25, 0.5])
    assert [set(shares.values()) for shares in found] == [{0.25}, {0.5}]
    assert heard == []


def test_the_search_restores_the_network(
    network: Network, manifest: Manifest, texts: list[Continuation]
) -> None:
    before = network_runner.runner(network).read(texts)
    list(search(network, manifest, texts, "fdt").rounds([0.4]))
    assert network_runner.runner(network).read(texts) == before
