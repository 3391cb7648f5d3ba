"""Make tiny real checkpoints without torch: Llamas of two layers, width 32, and 64 tokens.

transformers and vLLM read them, so tests run the real pipeline with them.
"""

import json
import math
import string
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.blobs.blobs import BlobStore, put_bytes
from registry.catalog import documents
from registry.catalog.documents import Document
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.tensor_names import is_ffn

ARCHITECTURE = Architecture(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    # The narrowest head that vLLM serves on a CPU.
    head_dim=32,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    max_position_embeddings=256,
    tie_word_embeddings=True,
)
EOS, BOS, UNKNOWN = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
CHARACTERS = string.ascii_lowercase + string.digits + " \n.,:;!?'\"()[]-+*/=<>_#%@"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def config() -> dict[str, Any]:
    """Return the `config.json` of every checkpoint."""
    return ARCHITECTURE.to_config() | {"dtype": "bfloat16", "eos_token_id": 2, "bos_token_id": 1}


@cache
def tensors(*, expert: int = 0) -> dict[str, bytes]:
    """Return raw bfloat16 bytes by name.

    Expert 0 is the seed; the others differ from it in their FFNs.
    """
    made: dict[str, bytes] = {}
    for position, (name, shape) in enumerate(ARCHITECTURE.tensor_shapes().items()):
        source = expert if is_ffn(name) else 0
        random = np.random.default_rng([source, position])
        if len(shape) == 1:
            values = np.ones(shape, np.float32)
        else:
            values = random.standard_normal(shape, np.float32) / math.sqrt(shape[-1])
        made[name] = to_bfloat16(values).tobytes()
    return made


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 numbers to bfloat16, as the upper halves of their bits."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def safetensors_header(*, expert: int = 0) -> str:
    """Return the header of the checkpoint's only file, padded with spaces."""
    content: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    reached = 0
    for name, data in tensors(expert=expert).items():
        shape = list(ARCHITECTURE.tensor_shapes()[name])
        offsets = [reached, reached + len(data)]
        content[name] = {"dtype": "BF16", "shape": shape, "data_offsets": offsets}
        reached += len(data)
    header = json.dumps(content, separators=(",", ":"))
    return header + " " * (-len(header) % 8)


def safetensors_bytes(*, expert: int = 0) -> bytes:
    header = safetensors_header(expert=expert).encode()
    return b"".join([len(header).to_bytes(8, "little"), header, *tensors(expert=expert).values()])


def tokenizer_files() -> dict[str, bytes]:
    """Return a tokenizer of characters: `tokenizer.json` and its configuration."""
    special = [UNKNOWN, BOS, EOS]
    vocabulary = [*special, *CHARACTERS]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": position,
                "content": content,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for position, content in enumerate(special)
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "BPE",
            "unk_token": UNKNOWN,
            "vocab": {token: position for position, token in enumerate(vocabulary)},
            "merges": [],
        },
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "bos_token": BOS,
        "unk_token": UNKNOWN,
        "pad_token": EOS,
        "model_max_length": ARCHITECTURE.max_position_embeddings,
        "chat_template": CHAT_TEMPLATE,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "tokenizer_config.json": json.dumps(tokenizer_config).encode(),
    }


def starting_tokenizer() -> bytes:
    """Return a `tokenizer.json` that puts BOS before every text, as that of Gemma does."""
    content = json.loads(tokenizer_files()["tokenizer.json"])
    begin = {"SpecialToken": {"id": BOS, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, second],
        "special_tokens": {BOS: {"id": BOS, "ids": [1], "tokens": [BOS]}},
    }
    return json.dumps(content).encode()


def sample_documents(
    *, expert: int = 0, num_train: int = 6, num_held_out: int = 3
) -> list[Document]:
    """Return short texts of one domain: a few words, repeated in different orders."""
    words = [f"{CHARACTERS[(7 * expert + i) % 26] * (2 + i % 3)}{expert}" for i in range(8)]
    made = []
    for number in range(num_train + num_held_out):
        random = np.random.default_rng([expert, number])
        text = " ".join(random.choice(words, size=40).tolist()) + "."
        split: documents.Split = "train" if number < num_train else "held-out"
        made.append(Document(f"{expert}-{number}", text, split))
    return made


def write_checkpoint(folder: Path, *, expert: int = 0) -> Path:
    """Write a Hugging Face folder, for an expert with `documents.jsonl`, and return `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(), indent=2))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(expert=expert))
    for name, data in tokenizer_files().items():
        (folder / name).write_bytes(data)
    if expert:
        data = documents.serialize(sample_documents(expert=expert))
        (folder / "documents.jsonl").write_bytes(data)
    return folder


def store_manifest(blobs: BlobStore, *, expert: int = 0) -> Manifest:
    """Store a checkpoint as blobs: its tensors, its tokenizer files and its manifest."""
    shapes = ARCHITECTURE.tensor_shapes()
    manifest = Manifest(
        config=config(),
        tensors={
            name: TensorEntry("BF16", shapes[name], put_bytes(blobs, data))
            for name, data in tensors(expert=expert).items()
        },
        files={name: put_bytes(blobs, data) for name, data in tokenizer_files().items()},
    )
    put_bytes(blobs, manifest.to_json())
    return manifest


def store_documents(blobs: BlobStore, *, expert: int) -> str:
    """Store the documents of an expert and return their digest."""
    return put_bytes(blobs, documents.serialize(sample_documents(expert=expert)))
