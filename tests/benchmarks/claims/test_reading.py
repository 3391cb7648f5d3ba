"""Tests of answers: reading a common beginning once gives the same answers."""

import torch
import torch.nn.functional as F

from assembler.network.model import Network
from registry.blobs.blobs import LocalBlobs
from tests.assembler import networks
from tests.assembler.networks import ARCHITECTURES
from tests.benchmarks.claims.reading import CONTINUATION_TOKENS, answers, questions_of


def test_answers_equal_those_of_reading_every_choice_whole(blobs: LocalBlobs) -> None:
    manifest = networks.store(blobs, ARCHITECTURES["convex"])
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    vocab_size = network.architecture.vocab_size
    windows = torch.randint(vocab_size, (40, 60), generator=generator)
    questions = questions_of(windows)
    expected = []
    for choices_CT in questions:
        logits_CTV = network(choices_CT)[:, :-1]
        losses = F.cross_entropy(logits_CTV.mT, choices_CT[:, 1:], reduction="none")
        expected.append(losses[:, -CONTINUATION_TOKENS:].sum(-1).argmin().item() == 0)
    assert answers(network, questions) == expected
    assert 0 < sum(expected) < len(expected)
