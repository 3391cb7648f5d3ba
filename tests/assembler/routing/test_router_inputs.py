"""Router inputs as a mix's routers read them, and their moments."""

from dataclasses import replace

import torch

from assembler.routing.embedder import DOMAIN_DIRECTIONS
from assembler.routing.router_inputs import Moments, RouterInputs
from assembler.training.batches import TokenReader
from engine.gates.mix_gate import WINDOW_TOKENS
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog.documents import Document
from registry.checkpoints.file_names import TOKENIZER
from tests import tiny


def test_router_inputs_are_the_normed_inputs_of_the_ffns(blobs: LocalBlobs) -> None:
    """RMS norms with unit weights give a mean square of 1 for every token."""
    checkpoint = tiny.store_manifest(blobs)
    inputs = RouterInputs(checkpoint, blobs)
    (states,) = inputs.batches(tiny.sample_documents(), num_tokens=WINDOW_TOKENS)
    assert [layer_states.shape for layer_states in states] == [(WINDOW_TOKENS, 32)] * 2
    for layer_states in states:
        torch.testing.assert_close(
            layer_states.square().mean(-1), torch.ones(len(layer_states)), rtol=0.02, atol=0
        )
    assert not torch.allclose(states[0], states[1])


def test_moments_are_those_of_the_captured_inputs(blobs: LocalBlobs) -> None:
    inputs = RouterInputs(tiny.store_manifest(blobs, expert=1), blobs)
    documents = tiny.sample_documents(expert=1)
    moments = inputs.moments(documents, num_tokens=4 * WINDOW_TOKENS)
    assert moments.num_tokens == 4 * WINDOW_TOKENS
    batches = list(inputs.batches(documents, num_tokens=4 * WINDOW_TOKENS))
    for layer in range(2):
        states_TD = torch.cat([batch[layer] for batch in batches])
        torch.testing.assert_close(moments.mean[layer], states_TD.mean(0))
        expected_DD = states_TD.T.cov(correction=0)
        torch.testing.assert_close(moments.covariance[layer], expected_DD, rtol=1e-3, atol=1e-4)


def test_an_embedding_is_the_mean_and_the_principal_directions(blobs: LocalBlobs) -> None:
    generator = torch.Generator().manual_seed(0)
    axes_DD, _ = torch.linalg.qr(torch.randn(64, 64, generator=generator))
    variances_D = torch.cat([torch.zeros(62), torch.tensor([4.0, 9.0])])
    covariance = axes_DD @ variances_D.diag() @ axes_DD.T
    moments = Moments(mean=torch.ones(1, 64), covariance=covariance[None], num_tokens=1)
    (rows_RD,) = moments.embedding()
    assert rows_RD.shape == (1 + DOMAIN_DIRECTIONS, 64)
    assert torch.equal(rows_RD[0], torch.ones(64))
    torch.testing.assert_close(rows_RD[1:].T @ rows_RD[1:], covariance, rtol=0, atol=1e-4)


def test_router_inputs_of_an_expert_differ_from_the_seeds_after_the_first_ffn(
    blobs: LocalBlobs,
) -> None:
    documents = tiny.sample_documents(expert=1)
    seed, expert = (
        RouterInputs(tiny.store_manifest(blobs, expert=number), blobs)
        .moments(documents, num_tokens=512)
        .mean
        for number in (0, 1)
    )
    # The first block's router precedes the first FFN, and an expert changed only FFNs.
    assert torch.equal(seed[0], expert[0])
    assert not torch.allclose(seed[1], expert[1])


def test_less_text_than_a_window_is_read_whole(blobs: LocalBlobs) -> None:
    checkpoint = tiny.store_manifest(blobs)
    short = [Document("1", "abc", "train"), Document("2", "not read", "held-out")]
    # Three characters and the end-of-text token.
    assert RouterInputs(checkpoint, blobs).moments(short, num_tokens=8192).num_tokens == 4
    assert len(TokenReader.of(checkpoint, blobs).windows(short, split="train", length=8)) == 0


def test_the_token_before_every_text_is_read_and_left_out(blobs: LocalBlobs) -> None:
    plain = tiny.store_manifest(blobs)
    files = {**plain.files, TOKENIZER: put_bytes(blobs, tiny.starting_tokenizer())}
    starting = replace(plain, files=files)
    documents = [Document("1", "one short text", "train")]
    (with_start,), (without,) = (
        RouterInputs(manifest, blobs).batches(documents, num_tokens=100)
        for manifest in (starting, plain)
    )
    for read, other in zip(with_start, without, strict=True):
        assert read.shape == other.shape
        # Attention reaches it.
        assert not torch.allclose(read, other)
