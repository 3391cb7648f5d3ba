"""Say in one sentence what an owner's folder holds where a Hugging Face checkpoint is needed.

These are the things that people give by mistake. Nothing is hashed, and no weight is read.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry import bounded_json
from registry.checkpoints.file_names import ADAPTER_CONFIG, ADAPTER_TENSORS, CONFIG, TOKENIZER
from registry.checkpoints.safetensors_header import LENGTH_BYTES
from registry.errors import InvalidCheckpoint, InvalidInput
from registry.ingest.shards import CONSOLIDATED, weight_files

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
GGUF_MAGIC = b"GGUF"
PICKLED_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FLOAT8 = re.compile(rb'"dtype"\s*:\s*"(F8_[A-Z0-9]+)"')
# Only the beginning of a header is searched for dtypes: a checkpoint that is in float8 has such
# tensors in its first block.
SEARCHED_BYTES = 1 << 20

INSTEAD = "give a Hugging Face folder with config.json, tokenizer.json and *.safetensors"


def check_folder(folder: Path) -> None:
    """Check that a folder has what a checkpoint has, as far as a glance can tell.

    Raises InvalidInput with what is there instead, and what would be right.
    """
    if not folder.exists():
        raise InvalidInput(f"there is no folder {folder}: {INSTEAD}")
    if not folder.is_dir():
        raise InvalidInput(_about_file(folder))
    weights = weight_files(folder)
    if not weights:
        raise InvalidInput(_about_missing_weights(folder))
    if not (folder / CONFIG).is_file():
        raise InvalidInput(f"{folder} has no {CONFIG} beside its *.safetensors: {INSTEAD}")
    for path in (*weights, folder / CONFIG, folder / TOKENIZER):
        if path.is_file() and _beginning(path).startswith(LFS_POINTER):
            raise InvalidInput(
                f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"
            )
    for path in weights:
        if dtype := _float8_dtype(path):
            raise InvalidInput(
                f"{path} has weights in {dtype}: only float weights are taken, so give the"
                " checkpoint in BF16 that was quantized"
            )


def read_config(folder: Path, *, name: str = CONFIG) -> dict[str, Any]:
    """Return the content of a config file. Raises InvalidCheckpoint if it is no JSON object."""
    path = folder / name
    try:
        config = bounded_json.parse(path.read_bytes())
    except OSError as error:
        raise InvalidCheckpoint(f"{path} cannot be read: {error.strerror}") from error
    except InvalidInput as error:
        raise InvalidCheckpoint(f"{path} is refused: {error.detail}") from error
    if not isinstance(config, dict):
        raise InvalidCheckpoint(f"{path} is refused: it must be a JSON object")
    return config


def _about_file(path: Path) -> str:
    if path.suffix == ".gguf" or _beginning(path).startswith(GGUF_MAGIC):
        return (
            f"{path} is a GGUF file, made for llama.cpp: {INSTEAD}, from which such a file is made"
        )
    return f"{path} is a file, not a folder: {INSTEAD}"


def _about_missing_weights(folder: Path) -> str:
    if (folder / ADAPTER_CONFIG).exists() or (folder / ADAPTER_TENSORS).exists():
        return (
            f"{folder} holds a LoRA adapter, which is registered as an expert of the family of its"
            " base model; here a whole model is needed: merge it (`merge_and_unload()` of peft),"
            " save that, and give the new folder"
        )
    if found := _first(folder, (f"{CONSOLIDATED}*.safetensors",)):
        return (
            f"{folder} has its weights in {found} only, under names that transformers does not"
            f" read: {INSTEAD}"
        )
    if found := _first(folder, ("*.gguf",)):
        return f"{folder} has its weights in {found}, a GGUF file made for llama.cpp: {INSTEAD}"
    if found := _first(folder, PICKLED_WEIGHTS):
        return (
            f"{folder} has its weights in {found}, a pickle, which can run code: save the model"
            " again with `save_pretrained(FOLDER, safe_serialization=True)`"
        )
    return f"{folder} has no *.safetensors: {INSTEAD}"


def _first(folder: Path, patterns: Sequence[str]) -> str | None:
    names = sorted(path.name for pattern in patterns for path in folder.glob(pattern))
    return names[0] if names else None


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(max(len(LFS_POINTER), len(GGUF_MAGIC)))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error


def _float8_dtype(path: Path) -> str | None:
    """Return the float8 dtype in the beginning of a header, None without one."""
    with path.open("rb") as file:
        file.seek(LENGTH_BYTES)
        found = FLOAT8.search(file.read(SEARCHED_BYTES))
    return None if found is None else found[1].decode()
