"""Each thing that people give in the place of a checkpoint has its own sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import InvalidCheckpoint, InvalidInput
from registry.ingest.folder_contents import check_folder, read_config
from registry.ingest.shards import weight_files
from tests import tiny

LFS_POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 12345\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "expert", expert=1)


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def lora(folder: Path) -> None:
    without_weights(folder)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")


def pickled(folder: Path) -> None:
    without_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")


def gguf(folder: Path) -> None:
    without_weights(folder)
    (folder / "model-Q4_K_M.gguf").write_bytes(b"GGUF")


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text(LFS_POINTER)


def pointer_of_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(LFS_POINTER)


def float8(folder: Path) -> None:
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}})
    data = len(header).to_bytes(8, "little") + header.encode() + b"\0"
    (folder / "model.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without_weights, r"expert has no \*\.safetensors: give a Hugging Face folder"),
        (lora, "holds a LoRA adapter, which is registered as an expert"),
        (pickled, r"has its weights in pytorch_model\.bin, a pickle, .* safe_serialization=True"),
        (gguf, r"has its weights in model-Q4_K_M\.gguf, a GGUF file"),
        (without_config, r"has no config\.json beside its"),
        (pointer, r"model\.safetensors is a Git LFS pointer, .* `git lfs pull`"),
        (pointer_of_tokenizer, r"tokenizer\.json is a Git LFS pointer"),
        (float8, r"has weights in F8_E4M3: only float weights are taken"),
    ],
)
def test_what_is_no_checkpoint_is_named(
    folder: Path, change: Callable[[Path], None], sentence: str
) -> None:
    change(folder)
    with pytest.raises(InvalidInput, match=sentence) as refused:
        check_folder(folder)
    assert "\n" not in refused.value.detail
    assert refused.value.problems == ()


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"there is no folder {tmp_path / 'none'}"):
        check_folder(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("model.gguf", b"GGUF", "is a GGUF file, made for llama"),
        ("model", b"GGUF\x03", "is a GGUF file, made for llama"),
        ("model.safetensors", b"", "is a file, not a folder"),
    ],
)
def test_a_file_is_named(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInput, match=sentence):
        check_folder(tmp_path / name)


def test_a_checkpoint_is_taken_with_what_may_lie_beside_it(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / "._model.safetensors").write_bytes(b"\0")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    check_folder(folder)
    assert weight_files(folder) == [folder / "model.safetensors"]


@pytest.mark.parametrize(
    "content",
    [b'{"a": Infinity}', b'{"a": 1,}', b"[" * 100_000, b"\xff", b"[]"],
)
def test_a_config_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(InvalidCheckpoint, match=r"config\.json is refused: "):
        read_config(folder)
