"""The index names the shards, whatever lies beside them."""

import json
from pathlib import Path

import pytest

from registry.errors import InvalidInput
from registry.ingest.shards import weight_files

BOTH = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BESIDE = [
    "consolidated.safetensors",
    "consolidated-00001-of-00001.safetensors",
    "adapter_model.safetensors",
    "._model-00001-of-00002.safetensors",
]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def write_index(folder: Path, content: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def names_of(folder: Path) -> list[str]:
    return [path.name for path in weight_files(folder)]


def test_one_file_is_read_before_an_index_as_transformers_does(tmp_path: Path) -> None:
    touch(tmp_path, "model.safetensors", *BOTH, *BESIDE)
    write_index(tmp_path, {"weight_map": dict(zip("ab", BOTH, strict=True))})
    assert names_of(tmp_path) == ["model.safetensors"]


def test_the_index_names_the_shards(tmp_path: Path) -> None:
    touch(tmp_path, *BOTH, *BESIDE, "model-00001-of-00003.safetensors", "other.safetensors")
    write_index(tmp_path, {"weight_map": dict(zip("ab", BOTH, strict=True))})
    assert names_of(tmp_path) == BOTH


def test_names_of_shards_do_without_an_index(tmp_path: Path) -> None:
    touch(tmp_path, *BOTH, *BESIDE)
    assert names_of(tmp_path) == BOTH


def test_a_file_of_any_name_is_taken_alone(tmp_path: Path) -> None:
    touch(tmp_path, "weights.safetensors", *BESIDE)
    assert names_of(tmp_path) == ["weights.safetensors"]


def test_a_folder_without_weights_has_none(tmp_path: Path) -> None:
    touch(tmp_path, *BESIDE)
    assert names_of(tmp_path) == []


@pytest.mark.parametrize("has_index", [True, False])
def test_half_a_set_is_refused(tmp_path: Path, has_index: bool) -> None:
    touch(tmp_path, BOTH[0])
    if has_index:
        write_index(tmp_path, {"weight_map": dict(zip("ab", BOTH, strict=True))})
    with pytest.raises(InvalidInput, match=f"has 1 of 2 shards, as .*: {BOTH[1]} is missing"):
        weight_files(tmp_path)


def test_two_sets_without_an_index_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *BOTH, "model-00001-of-00001.safetensors")
    with pytest.raises(InvalidInput, match=r"several checkpoints \(model-\*-of-00001 and model-\*"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "has no weight_map"),
        ({"weight_map": {}}, "has no weight_map"),
        ({"weight_map": {"a": "../b.safetensors"}}, "is no safetensors file beside it"),
        ({"weight_map": {"a": "pytorch_model.bin"}}, "is no safetensors file beside it"),
    ],
)
def test_an_index_that_names_no_shards_is_refused(
    tmp_path: Path, content: object, reason: str
) -> None:
    write_index(tmp_path, content)
    with pytest.raises(InvalidInput, match=reason):
        weight_files(tmp_path)
