"""What transformers and a chat template make of a checkpoint is known before it is ready."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer

from assembler.jobs import checkpoint_checks
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints.manifests import Manifest
from registry.errors import Incompatible, InvalidCheckpoint
from tests import tiny
from tests.assembler.test_tokenizer_file import changed, with_token

TEXTS = ["a text"]


def with_files(blobs: LocalBlobs, **files: bytes) -> Manifest:
    """Return the seed with other files; `__` in an argument stands for a dot."""
    manifest = tiny.store_manifest(blobs)
    digests = {name.replace("__", "."): put_bytes(blobs, data) for name, data in files.items()}
    return replace(manifest, files=manifest.files | digests)


def with_config(blobs: LocalBlobs, **fields: Any) -> Manifest:
    manifest = tiny.store_manifest(blobs)
    return replace(manifest, config=manifest.config | fields)


def tokenizer_config(**fields: Any) -> bytes:
    content = json.loads(tiny.tokenizer_files()["tokenizer_config.json"])
    return json.dumps(content | fields).encode()


def refusal(manifest: Manifest, blobs: LocalBlobs) -> InvalidCheckpoint:
    with pytest.raises(InvalidCheckpoint) as error:
        checkpoint_checks.check_readers(manifest, blobs, texts=TEXTS)
    return error.value


def test_a_sound_checkpoint_passes(blobs: LocalBlobs) -> None:
    checkpoint_checks.check_readers(tiny.store_manifest(blobs), blobs, texts=TEXTS)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        # transformers takes no whole number here.
        ({"rms_norm_eps": 1}, "Field 'rms_norm_eps' expected float, got int"),
        ({"attention_bias": 0}, "Field 'attention_bias' expected bool, got int"),
    ],
)
def test_a_config_that_transformers_refuses_is_refused(
    blobs: LocalBlobs, fields: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(with_config(blobs, **fields), blobs).detail


def test_a_config_that_transformers_reads_otherwise_is_refused(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tiny.store_manifest(blobs)
    # As if our reading of a field were another than theirs.
    monkeypatch.setitem(
        manifest.__dict__, "architecture", replace(manifest.architecture, rope_theta=5.0)
    )
    error = refusal(manifest, blobs)
    assert error.problems[0].pointer == "/config/rope_theta"
    assert "is 5.0 to us and 10000.0 to transformers" in error.problems[0].detail


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{}", r"tokenizer.json is no tokenizer"),
        (with_token(64), "tokens beyond the vocabulary of 64"),
        (changed(truncation={"max_length": 0}), "is no tokenizer"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(
    blobs: LocalBlobs, data: bytes, reason: str
) -> None:
    assert reason in refusal(with_files(blobs, tokenizer__json=data), blobs).detail


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for message in messages %}", "in line 1"),
        ("{{ messages[0].content.nothing.at.all }}", "has no attribute"),
        ("{{ raise_exception('no chat') }}", "no chat"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "s for"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_refused(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, template: str, reason: str
) -> None:
    monkeypatch.setattr(checkpoint_checks, "TEMPLATE_SECONDS", 0.3)
    own = with_files(blobs, tokenizer_config__json=tokenizer_config(chat_template=template))
    error = refusal(own, blobs)
    assert error.detail.startswith("tokenizer_config.json has a chat template that cannot be")
    assert reason in error.detail
    beside = with_files(blobs, chat_template__jinja=template.encode())
    assert refusal(beside, blobs).problems[0].pointer == "/files/chat_template.jinja"


def test_a_checkpoint_without_a_template_passes(blobs: LocalBlobs) -> None:
    silent = with_files(blobs, tokenizer_config__json=tokenizer_config(chat_template=None))
    checkpoint_checks.check_readers(silent, blobs, texts=TEXTS)


@pytest.mark.parametrize("name", ["tokenizer_config__json", "generation_config__json"])
def test_a_file_that_transformers_cannot_read_is_refused(blobs: LocalBlobs, name: str) -> None:
    error = refusal(with_files(blobs, **{name: b"[1]"}), blobs)
    assert error.problems[0].pointer == f"/files/{name.replace('__', '.')}"


def test_a_tokenizer_is_compared_by_what_it_means(blobs: LocalBlobs) -> None:
    seed = tiny.store_manifest(blobs)
    content = json.loads(changed())
    again = Tokenizer.from_str(json.dumps(content)).to_str(pretty=True).encode()
    checkpoint_checks.check_same_tokens(with_files(blobs, tokenizer__json=again), seed, blobs)
    content["normalizer"] = None
    other = with_files(blobs, tokenizer__json=json.dumps(content).encode())
    with pytest.raises(Incompatible, match=r"cuts texts in another way .*: normalizer"):
        checkpoint_checks.check_same_tokens(other, seed, blobs)


def test_documents_without_a_token_are_refused(blobs: LocalBlobs) -> None:
    content = json.loads(changed())
    content["model"] |= {"vocab": {"a": 0}, "unk_token": None}
    silent = with_files(blobs, tokenizer__json=json.dumps(content | {"added_tokens": []}).encode())
    with pytest.raises(InvalidCheckpoint, match="finds no token in the documents"):
        checkpoint_checks.check_readers(silent, blobs, texts=["\N{SNOWMAN}"])
