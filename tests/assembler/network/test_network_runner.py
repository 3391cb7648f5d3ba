"""Perplexity, divergence and routing of a tiny mix equal slow definitions."""

import math

import pytest
import torch

from assembler.network import network_runner
from assembler.network.model import Network
from assembler.network.moe import Router
from engine.divergence.aggregates import summarize
from engine.divergence.metrics import Tokens
from registry.blobs.blobs import LocalBlobs
from tests import tiny
from tests.assembler import tiny_mixes

PROMPTS = torch.arange(3 * 7).reshape(3, 7)
PREFIXES: list[Tokens] = [tuple(row) for row in PROMPTS.tolist()]


@pytest.fixture
def network(blobs: LocalBlobs) -> Network:
    return Network.from_manifest(tiny_mixes.store_mix(blobs), blobs, dtype=torch.float32)


def test_log_perplexity_is_the_mean_over_tokens(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_runner, "BATCH_TOKENS", 14)  # two batches, of unequal sizes
    logprobs = network(PROMPTS).log_softmax(-1)
    taken = [logprobs[i, t - 1, PROMPTS[i, t]].item() for i in range(3) for t in range(1, 7)]
    expected = -math.fsum(taken) / 18
    assert network_runner.log_perplexity(network, PROMPTS) == pytest.approx(expected, abs=1e-5)


def test_a_network_predicts_its_own_greedy_text(network: Network) -> None:
    runner = network_runner.runner(network)
    continuations = runner.write(PREFIXES, num_tokens=5)
    assert [c.prefix for c in continuations] == PREFIXES
    assert summarize(continuations, runner.read(continuations)).equal_share == 1


def test_logprobs_are_those_of_the_continuation(network: Network) -> None:
    runner = network_runner.runner(network)
    (continuation,) = runner.write(PREFIXES[:1], num_tokens=4)
    (reading,) = runner.read([continuation])
    text = torch.tensor([continuation.prefix + continuation.tokens])
    logprobs = network(text).log_softmax(-1)[0, 6:-1]
    expected = [row[token].item() for row, token in zip(logprobs, continuation.tokens, strict=True)]
    assert reading.logprobs == pytest.approx(expected, abs=1e-5)


def test_first_choices_sum_to_one_and_follow_the_rows(network: Network) -> None:
    assert sum(network_runner.read(network, PROMPTS).first_choices) == pytest.approx(1)
    for module in network.modules():
        if isinstance(module, Router):
            module.weight.zero_()
    assert network_runner.read(network, PROMPTS).first_choices == [1, 0, 0]


def test_a_network_without_experts_chooses_nobody(blobs: LocalBlobs) -> None:
    network = Network.from_manifest(tiny.store_manifest(blobs), blobs, dtype=torch.float32)
    assert network_runner.read(network, PROMPTS).first_choices == []
