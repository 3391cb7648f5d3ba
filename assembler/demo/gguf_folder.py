"""Write the network and the tokenizer of a GGUF file as a Hugging Face folder."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from assembler.demo import gguf_tokenizer
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.file_names import CONFIG, TENSORS, TOKENIZER
from registry.imports import gguf_checkpoints, gguf_header, gguf_names, gguf_weights
from registry.imports.gguf_header import GgufHeader, GgufTensor
from registry.imports.gguf_names import Layout

# Settings that only some bases have -> their fields in `config.json`.
OWN_FIELDS = {"attention.sliding_window": "sliding_window"}


def write(path: Path, folder: Path) -> None:
    """Write a GGUF file into `folder`, with weights in bfloat16.

    Embeddings and output layer must be tied. Raises InvalidCheckpoint for a header that cannot be
    read.
    """
    header = gguf_header.read(path)
    layout = gguf_names.LAYOUTS[header.metadata["general.architecture"]]
    architecture = _architecture(header, layout)
    found = gguf_checkpoints.tensors_of(header, layout, is_tied=True)
    tensors = dict(_tensors(path, found, architecture))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == architecture.tensor_shapes(), "the GGUF file is not the network it describes"
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    special = gguf_tokenizer.special_ids(header.metadata)
    config = architecture.to_config() | special | {"dtype": "bfloat16"}
    tokenizer = gguf_tokenizer.of(header.metadata)
    tokenizer.save(str(folder / TOKENIZER))
    context = architecture.max_position_embeddings
    _write_json(folder / CONFIG, config)
    _write_json(folder / "generation_config.json", special)
    _write_json(
        folder / "tokenizer_config.json", gguf_tokenizer.config(header.metadata, context=context)
    )


def _architecture(header: GgufHeader, layout: Layout) -> Architecture:
    """Return the network. What the file does not say is the default of its base."""
    prefix = f"{header.metadata['general.architecture']}."
    values = {
        name.removeprefix(prefix): value
        for name, value in header.metadata.items()
        if name.startswith(prefix)
    }
    heads, hidden = values["attention.head_count"], values["embedding_length"]
    return Architecture.from_config(
        {
            "model_type": layout.model_type,
            "vocab_size": header.tensors["token_embd.weight"].shape[0],
            "hidden_size": hidden,
            "intermediate_size": values["feed_forward_length"],
            "num_hidden_layers": values["block_count"],
            "num_attention_heads": heads,
            "num_key_value_heads": values["attention.head_count_kv"],
            "head_dim": values.get("attention.key_length", hidden // heads),
            # GGUF stores it in float32, so that 1e-05 is read as 9.999999747378752e-06.
            "rms_norm_eps": float(f"{values['attention.layer_norm_rms_epsilon']:.6g}"),
            "rope_theta": values["rope.freq_base"],
            "max_position_embeddings": values["context_length"],
            "tie_word_embeddings": True,
            **{field: values[name] for name, field in OWN_FIELDS.items() if name in values},
        }
    )


def _tensors(
    path: Path, found: Mapping[str, GgufTensor], architecture: Architecture
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in found.items():
        values = gguf_weights.read_as(name, path, tensor, architecture)
        yield name, torch.from_numpy(values).to(torch.bfloat16)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
