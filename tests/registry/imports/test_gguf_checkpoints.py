"""A GGUF file must be the network of the family's seed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from registry.blobs.blobs import LocalBlobs
from registry.errors import Incompatible
from registry.imports import gguf_checkpoints, gguf_header
from registry.imports.gguf_checkpoints import TOKENS
from registry.imports.gguf_header import GgufHeader, GgufTensor
from tests import tiny, tiny_gguf

Change = Callable[[GgufHeader], GgufHeader]


@pytest.fixture
def header(tmp_path: Path) -> GgufHeader:
    return gguf_header.read(tiny_gguf.write(tmp_path / "tiny.gguf"))


def with_metadata(**values: object) -> Change:
    changes = {key.replace("__", "."): value for key, value in values.items()}
    return lambda header: replace(header, metadata=header.metadata | changes)


def with_tensor(name: str, tensor: GgufTensor | None) -> Change:
    def change(header: GgufHeader) -> GgufHeader:
        tensors = {key: each for key, each in header.tensors.items() if key != name}
        return replace(header, tensors=tensors | ({name: tensor} if tensor else {}))

    return change


def test_each_tensor_of_the_seed_is_found(blobs: LocalBlobs, header: GgufHeader) -> None:
    seed = tiny.store_manifest(blobs)
    planned = gguf_checkpoints.plan(header, seed)
    assert list(planned) == list(seed.tensors)
    assert gguf_checkpoints.summary(planned) == (
        "GGUF file, dequantized from BF16 (15 tensors), F32 (5 tensors)"
    )


def test_tied_embeddings_are_read_where_they_have_more_bits(
    blobs: LocalBlobs, header: GgufHeader
) -> None:
    output = GgufTensor(0, (64, 32), 0)
    changed = with_tensor("output.weight", output)(header)
    planned = gguf_checkpoints.plan(changed, tiny.store_manifest(blobs))
    assert planned["model.embed_tokens.weight"] == output


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_metadata(general__architecture="gemma2"), "is 'gemma2', the family's seed is"),
        (with_metadata(general__architecture=["llama"]), "is ['llama']"),
        (with_metadata(llama__attention__head_count=8), "is 8, the family's seed has 4"),
        (with_metadata(llama__rope__freq_base=5e5), "is 500000.0, the family's seed has 10000.0"),
        (with_metadata(llama__rope__scaling__type="yarn"), "is 'yarn': positions are scaled"),
        (with_tensor("output_norm.weight", None), "the file has no model.norm.weight"),
        (
            with_tensor("blk.0.attn_q.weight", GgufTensor(0, (64, 32), 0)),
            "is [64, 32], the family's seed has [128, 32]",
        ),
        (
            with_tensor("blk.0.attn_q.bias", GgufTensor(0, (128,), 0)),
            "model.layers.0.self_attn.q_proj.bias has no place",
        ),
        (with_tensor("rope_freqs.weight", GgufTensor(0, (16,), 0)), "has no place"),
    ],
)
def test_another_network_is_refused(
    blobs: LocalBlobs, header: GgufHeader, change: Change, sentence: str
) -> None:
    with pytest.raises(Incompatible) as caught:
        gguf_checkpoints.plan(change(header), tiny.store_manifest(blobs))
    assert sentence in caught.value.problems[0].detail


def test_tokens_are_compared_by_their_numbers() -> None:
    tokenizer = tiny.tokenizer_files()["tokenizer.json"]
    gguf_checkpoints.check_tokens(GgufHeader({TOKENS: tiny_gguf.tokens()}, {}), tokenizer)
    swapped = tiny_gguf.tokens()
    swapped[5], swapped[6] = swapped[6], swapped[5]
    first = list(json.loads(tiny.tokenizer_files()["tokenizer.json"])["model"]["vocab"])[5]
    for tokens in (swapped, tiny_gguf.tokens()[:5], None):
        with pytest.raises(Incompatible) as caught:
            gguf_checkpoints.check_tokens(GgufHeader({TOKENS: tokens}, {}), tokenizer)
        assert "the family's tokenizer has" in caught.value.problems[0].detail
    assert first not in tiny_gguf.tokens()[:5]
