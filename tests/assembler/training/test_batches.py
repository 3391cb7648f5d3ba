"""Token windows of documents, and batches that depend on nothing but seed and step."""

import pytest
import torch

from assembler import tokenizer_file
from assembler.training.batches import DomainBatches, TokenReader, sample_windows
from registry.blobs.blobs import LocalBlobs
from registry.catalog.documents import Document
from registry.errors import InvalidInput
from tests import tiny

WINDOWS = [torch.arange(10 * i, 10 * i + 4)[:, None] for i in range(3)]


def test_documents_are_joined_by_end_of_text(blobs: LocalBlobs) -> None:
    reader = TokenReader.of(tiny.store_manifest(blobs), blobs)
    documents = [Document("1", "abc", "train"), Document("2", "de", "train")]
    windows = reader.windows(documents, split="train", length=3)
    assert [reader.decode(window) for window in windows.tolist()] == ["abc", f"{tiny.EOS}de"]


def test_every_window_begins_as_the_tokenizer_begins_a_text() -> None:
    reader = TokenReader(tokenizer_file.read(tiny.starting_tokenizer()), config=tiny.config())
    documents = [Document("1", "abc", "train"), Document("2", "de", "train")]
    windows = reader.windows(documents, split="train", length=4)
    assert [reader.decode(window) for window in windows.tolist()] == [
        f"{tiny.BOS}abc",
        f"{tiny.BOS}{tiny.EOS}de",
    ]
    assert reader.windows(documents[:1], split="train", length=6).shape == (0, 6)


def test_a_token_before_texts_that_is_not_the_configs_is_left_out() -> None:
    config = tiny.config() | {"bos_token_id": None}
    tokenizer = tokenizer_file.read(tiny.starting_tokenizer())
    assert TokenReader(tokenizer, config=config).start == ()


def test_only_the_requested_split_is_read(blobs: LocalBlobs) -> None:
    reader = TokenReader.of(tiny.store_manifest(blobs), blobs)
    documents = [Document("1", "abc", "train"), Document("2", "xyz", "held-out")]
    windows = reader.windows(documents, split="held-out", length=3)
    assert [reader.decode(window) for window in windows.tolist()] == ["xyz"]


def test_a_batch_draws_from_every_domain_and_labels_it() -> None:
    batch = DomainBatches(WINDOWS, batch_size=6, entropy=[0]).batch(0)
    assert batch.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (batch.tokens[:, 0] // 10).tolist() == batch.labels.tolist()


def test_rarer_domains_have_larger_weights() -> None:
    mixture = DomainBatches(WINDOWS, batch_size=12, entropy=[0], new={2}, new_share=0.5)
    batch = mixture.batch(0)
    assert batch.labels.bincount().tolist() == [3, 3, 6]
    counts = [batch.weights[batch.labels == domain].sum().item() for domain in range(3)]
    assert counts == pytest.approx([4, 4, 4])


def test_an_epoch_contains_every_window_once() -> None:
    mixture = DomainBatches(WINDOWS, batch_size=4, entropy=[0])
    seen = torch.cat([mixture.batch(step).tokens for step in range(3)]).flatten()
    assert sorted(seen.tolist()) == torch.cat(WINDOWS).flatten().tolist()


def test_a_batch_depends_only_on_seed_and_step() -> None:
    first, again = (DomainBatches(WINDOWS, batch_size=5, entropy=[3]) for _ in range(2))
    first.batch(0)
    assert torch.equal(first.batch(7).tokens, again.batch(7).tokens)
    other = DomainBatches(WINDOWS, batch_size=5, entropy=[4])
    assert any(not torch.equal(first.batch(i).tokens, other.batch(i).tokens) for i in range(5))


def test_a_domain_without_a_window_is_named() -> None:
    with pytest.raises(InvalidInput) as error:
        DomainBatches([WINDOWS[0], torch.empty(0, 8)], batch_size=2, entropy=[0])
    assert [problem.pointer for problem in error.value.problems] == ["/experts/1"]


def test_sampled_windows_are_evenly_spread() -> None:
    windows = torch.arange(9)[:, None]
    assert sample_windows(windows, count=3).flatten().tolist() == [0, 4, 8]
    assert sample_windows(windows, count=20) is windows


def test_a_domain_without_documents_is_never_drawn() -> None:
    windows = [WINDOWS[0], None, WINDOWS[2]]
    batch = DomainBatches(windows, batch_size=8, entropy=[0]).batch(0)
    assert batch.labels.tolist() == [0, 2] * 4
    assert batch.weights.tolist() == [1.0] * 8
    extended = DomainBatches(windows, batch_size=8, entropy=[0], new={1}).batch(0)
    assert extended.labels.tolist() == [0, 2] * 4
