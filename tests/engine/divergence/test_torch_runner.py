"""One teacher-forced reading equals two free runs: on tables, our network and transformers'.

Covers: transformers_runner.
"""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaForCausalLM

from assembler.network import network_runner
from assembler.network.model import Network
from engine.divergence.metrics import Continuation, Reading, Tokens, compare
from engine.divergence.torch_runner import TorchRunner
from engine.divergence.transformers_runner import of_model
from registry.blobs.blobs import LocalBlobs
from tests import tiny
from tests.engine.divergence import tables
from tests.engine.divergence.tables import END, VOCABULARY, as_network, free_run, table

PREFIXES: list[Tokens] = [(5, 6, 7, 8), (9, 10), (30, 31, 32, 33), (11, 12, 13)]

prefixes = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=3).map(tuple),
    min_size=1,
    max_size=4,
)


def runner(table: tables.Table, *, batch_tokens: int = 16) -> TorchRunner:
    return TorchRunner(as_network(table), stop_token_ids={END}, batch_tokens=batch_tokens)


@given(prefixes, st.integers(0, 2**32 - 1), st.floats(0, 0.3), st.integers(1, 8))
def test_one_reading_gives_the_fdt_of_two_free_runs(
    prefixes: list[Tokens], seed: int, strays: float, num_tokens: int
) -> None:
    reference, candidate = table(seed), table(seed, strays=strays)
    texts = runner(reference).write(prefixes, num_tokens=num_tokens)
    readings = runner(candidate).read(texts)
    for prefix, text, reading in zip(prefixes, texts, readings, strict=True):
        free_text = free_run(candidate, prefix, num_tokens)
        assert (text.prefix, text.tokens) == (prefix, free_run(reference, prefix, num_tokens))
        agreeing = [a == b for a, b in zip(text.tokens, free_text, strict=False)]
        expected = agreeing.index(False) if False in agreeing else len(agreeing)
        assert compare(text, reading).fdt == expected


@given(prefixes, st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_sdt_counts_corrections_on_the_references_text(
    prefixes: list[Tokens], seed: int, strays: float
) -> None:
    reference, candidate = table(seed), table(seed, strays=strays)
    texts = runner(reference).write(prefixes, num_tokens=6)
    for text, reading in zip(texts, runner(candidate).read(texts), strict=True):
        whole = text.prefix + text.tokens
        contexts = [whole[:end] for end in range(len(text.prefix), len(whole))]
        corrections = [free_run(candidate, context, 1) for context in contexts]
        wrong = sum(
            correction != (token,)
            for correction, token in zip(corrections, text.tokens, strict=True)
        )
        assert compare(text, reading).sdt == wrong


def test_a_margin_is_the_lead_over_the_runner_up() -> None:
    def logits(tokens_BT: Tensor) -> Tensor:
        return torch.tensor([1.0, 4.0, 3.5]).expand(*tokens_BT.shape, 3)

    [text] = TorchRunner(logits).write([(0,)], num_tokens=2)
    assert text == Continuation((0,), (1, 1), margins=(0.5, 0.5))


def test_an_empty_prefix_is_refused_with_its_position() -> None:
    with pytest.raises(ValueError, match="without a token, which predict nothing: 1"):
        TorchRunner(as_network(table(0))).write([(1,), ()], num_tokens=1)


def test_our_network_writes_equally_with_and_without_cache(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    with_cache = network_runner.runner(network).write(PREFIXES, num_tokens=6)
    without = TorchRunner(network).write(PREFIXES, num_tokens=6)
    assert [c.tokens for c in with_cache] == [c.tokens for c in without]
    for one, other in zip(with_cache, without, strict=True):
        assert one.margins == pytest.approx(other.margins, abs=1e-4)


def test_our_network_and_transformers_do_not_diverge(blobs: LocalBlobs, tmp_path: Path) -> None:
    manifest = tiny.store_manifest(blobs)
    our_runner = network_runner.runner(Network.from_manifest(manifest, blobs, dtype=torch.float32))
    model = LlamaForCausalLM.from_pretrained(
        tiny.write_checkpoint(tmp_path / "seed"), dtype=torch.float32
    )
    hf_runner = of_model(model)
    texts = hf_runner.write(PREFIXES, num_tokens=6)
    assert [c.tokens for c in texts] == [c.tokens for c in our_runner.write(PREFIXES, num_tokens=6)]
    for text, reading in zip(texts, our_runner.read(texts), strict=True):
        assert compare(text, reading).sdt == 0


def test_readings_do_not_depend_on_the_batch() -> None:
    texts = [Continuation(prefix, (1, 2, 3)[: 1 + i % 3]) for i, prefix in enumerate(PREFIXES)]
    network = as_network(table(3))
    alone: list[Reading] = [TorchRunner(network).read([text])[0] for text in texts]
    assert TorchRunner(network).read(texts) == alone


def test_a_decoder_with_a_cache_writes_larger_batches() -> None:
    """Without a cache all logits of a text are in memory at every step."""
    sizes: dict[bool, set[int]] = {True: set(), False: set()}
    prefixes: list[Tokens] = [(1,) * 100] * 20
    for has_cache, seen in sizes.items():

        def logits(tokens_BT: Tensor, seen: set[int] = seen) -> Tensor:
            seen.add(len(tokens_BT))
            return torch.zeros(*tokens_BT.shape, VOCABULARY)

        new_decoder = (lambda step=logits: step) if has_cache else None
        TorchRunner(logits, new_decoder=new_decoder).write(prefixes, num_tokens=2)
    assert sizes == {True: {20}, False: {10}}
