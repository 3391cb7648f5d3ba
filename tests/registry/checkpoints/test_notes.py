"""Notes are part of a manifest, change no manifest without them, and are told in sentences."""

from dataclasses import replace

import pytest

from registry.checkpoints import notes
from registry.checkpoints.manifests import Cast, Manifest, Notes, Origin, TensorEntry
from registry.errors import InvalidCheckpoint
from tests import tiny

DIGEST = "a" * 64
EMBEDDINGS = "model.embed_tokens.weight"
PLAIN = Manifest(
    config=tiny.config(),
    tensors={name: TensorEntry("BF16", (2, 2), DIGEST) for name in (EMBEDDINGS, "b", "c")},
)
NOTES = Notes(
    casts={EMBEDDINGS: Cast("F32", True), "b": Cast("F32", False), "c": Cast("F32", False)},
    left_out={"d": "equals the embeddings"},
    rows={EMBEDDINGS: TensorEntry("BF16", (8, 2), "b" * 64)},
    tokens={f"<{n}>": 64 + n for n in range(4)},
    files={"tokenizer.json": "c" * 64},
    origin=Origin(address="hf:owner/name@main", commit_hash="d" * 40),
)


def test_a_manifest_without_notes_keeps_its_digest() -> None:
    assert b"notes" not in PLAIN.to_json()
    assert Manifest.from_json(PLAIN.to_json()) == PLAIN


def test_notes_are_kept_with_what_they_name() -> None:
    manifest = replace(PLAIN, notes=NOTES)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.digest != PLAIN.digest
    assert manifest.digests() == {DIGEST, "b" * 64, "c" * 64}


def test_notes_are_told_in_sentences() -> None:
    assert notes.sentences(PLAIN) == []
    assert notes.sentences(replace(PLAIN, notes=NOTES)) == [
        f"from hf:owner/name@main, commit {'d' * 40}",
        "float32 -> bfloat16: 2 tensors, numbers rounded",
        "float32 -> bfloat16: 1 tensor, no number changed",
        "left out: d, which equals the embeddings",
        "4 added tokens that the family does not have: '<0>' is 64, '<1>' is 65, '<2>' is 66, ...",
        "kept aside and not mixed: the last 8 rows of model.embed_tokens.weight",
        "kept aside and not mixed: tokenizer.json; the family's tokenizer is used",
    ]


@pytest.mark.parametrize("content", [b'"notes":[]', b'"notes":{"files":{"a":"b"}}'])
def test_notes_that_are_none_are_refused(content: bytes) -> None:
    data = PLAIN.to_json()[:-1] + b"," + content + b"}"
    with pytest.raises(InvalidCheckpoint, match="not a manifest"):
        Manifest.from_json(data)
