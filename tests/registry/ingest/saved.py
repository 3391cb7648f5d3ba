"""Folders as transformers and its users save them, made from the tiny checkpoints."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from registry.catalog import documents
from tests import tiny


def save(folder: Path, *, expert: int = 1, dtype: torch.dtype, **options: Any) -> Path:
    """Save a tiny expert with transformers in a dtype; `options` go to `save_pretrained`."""
    source = tiny.write_checkpoint(folder.with_name(f"{folder.name}-source"), expert=expert)
    model = LlamaForCausalLM.from_pretrained(source, dtype=dtype)
    model.save_pretrained(folder, **options)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    (folder / "documents.jsonl").write_bytes(
        documents.serialize(tiny.sample_documents(expert=expert))
    )
    return folder


def narrow(folder: Path, *, expert: int) -> Path:
    """Save a tiny expert whose heads have the width that transformers computes, 32 / 4."""
    source = tiny.write_checkpoint(folder.with_name(f"{folder.name}-source"), expert=expert)
    config = LlamaConfig(**tiny.config() | {"head_dim": 8})
    torch.manual_seed(0)
    create: Callable[..., Any] = LlamaForCausalLM
    create(config).bfloat16().save_pretrained(folder)
    for path in (*source.glob("tokenizer*"), *source.glob("documents.jsonl")):
        shutil.copyfile(path, folder / path.name)
    return folder


def save_with_tokens(folder: Path, *, tokens: list[str], num_rows: int) -> Path:
    """Save a tiny expert with added tokens and a resized vocabulary."""
    source = tiny.write_checkpoint(folder.with_name(f"{folder.name}-source"), expert=1)
    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(tokens)
    model.resize_token_embeddings(num_rows, mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "documents.jsonl").write_bytes(documents.serialize(tiny.sample_documents(expert=1)))
    return folder


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Change the tensors of a folder with one file of them."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def change_json(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file; a field that is `...` is taken out."""
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({n: v for n, v in content.items() if v is not ...}))
