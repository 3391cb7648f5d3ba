"""What a config announces is checked before any byte is sent.

Uploads as a whole are in `tests/registry/catalog/test_uploads.py`.
"""

import hashlib
from typing import Any

import pytest

from registry.checkpoints.admission import CheckpointAnnouncement, Shard, announce
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidCheckpoint
from tests import tiny


def announced(**changes: Any) -> Manifest:
    files, tensors = tiny.tokenizer_files(), tiny.tensors()
    return announce(
        CheckpointAnnouncement(
            config=tiny.config() | changes,
            files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            shards=[
                Shard(
                    "model.safetensors",
                    len(tiny.safetensors_bytes()),
                    tiny.safetensors_header(),
                )
            ],
            digests={name: hashlib.sha256(data).hexdigest() for name, data in tensors.items()},
        )
    )


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("quantization_config", {"quant_method": "bitsandbytes"}, "quantized ('bitsandbytes')"),
        ("quantization_config", {"quant_method": "compressed-tensors"}, "take the field out"),
        ("quantization_config", {}, "take the field out"),
        ("compression_config", {"quant_method": "sparseml"}, "take the field out"),
        ("eos_token_id", 64, "expected the number of a token, from 0 to 63"),
        ("eos_token_id", [2, "3"], "is '3'"),
        ("parallel_block", True, "no program would read it"),
    ],
)
def test_a_config_that_readers_take_otherwise_is_refused(
    field: str, value: object, reason: str
) -> None:
    with pytest.raises(InvalidCheckpoint) as error:
        announced(**{field: value})
    details = {problem.pointer: problem.detail for problem in error.value.problems}
    assert reason in details[f"/config/{field}"]


def test_nulls_that_mean_a_default_are_not_stored() -> None:
    # transformers, and so vLLM, refuses a config with such a null.
    config = announced(attention_bias=None, quantization_config=None, pad_token_id=None).config
    assert "quantization_config" not in config
    assert "attention_bias" not in config
    assert config["pad_token_id"] is None
