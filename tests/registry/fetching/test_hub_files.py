"""The files of a repository that an import needs."""

import pytest

from registry.errors import InvalidInput
from registry.fetching import addresses, hub_files
from registry.fetching.addresses import HubAddress
from registry.fetching.hub_files import Choice, RemoteFile

SMALL = ["config.json", "tokenizer.json", "README.md", "LICENSE", "documents.jsonl"]
NOT_NEEDED = [
    ".gitattributes",
    "pytorch_model.bin",
    "optimizer.pt",
    "onnx/model.onnx",
    "1/model.safetensors",
    "consolidated.safetensors",
    "tf_model.h5",
]


def choose(*names: str, address: str = "hf:o/n") -> Choice:
    return hub_files.choose(hub_address(address), map(RemoteFile, names))


def hub_address(text: str) -> HubAddress:
    address = addresses.parse(text)
    assert isinstance(address, HubAddress)
    return address


def names(files: list[RemoteFile]) -> list[str]:
    return [file.name for file in files]


def test_a_model_is_its_weights_and_what_lies_beside() -> None:
    choice = choose(*NOT_NEEDED, *SMALL, "model.safetensors", "adapter_model.safetensors")
    assert names(choice.weights) == ["model.safetensors"]
    assert names(choice.beside) == sorted(SMALL)
    assert choice.file is None


def test_shards_are_those_that_the_index_names() -> None:
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    choice = choose("model.safetensors.index.json", *shards, "old-00001-of-00003.safetensors")
    assert "model.safetensors.index.json" in names(choice.beside)
    address = HubAddress("o/n")
    assert names(choice.named_in(shards, address).weights) == shards
    with pytest.raises(InvalidInput, match=r"names: third\.safetensors are missing"):
        choice.named_in([*shards, "third.safetensors"], address)


def test_an_adapter_is_taken_without_a_model() -> None:
    choice = choose("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
    assert names(choice.weights) == ["adapter_model.safetensors"]
    assert names(choice.beside) == ["adapter_config.json"]


def test_the_only_gguf_file_is_taken_alone() -> None:
    choice = choose("config.json", "a.gguf")
    assert (names(choice.weights), choice.beside, choice.file) == (["a.gguf"], [], "a.gguf")


def test_one_of_several_gguf_files_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"2 GGUF files \(a\.gguf, b\.gguf\).* hf:o/n@main:a"):
        choose("b.gguf", "a.gguf")
    assert choose("b.gguf", "a.gguf", address="hf:o/n:b.gguf").file == "b.gguf"
    with pytest.raises(InvalidInput, match=r"no such file: it has a\.gguf"):
        choose("a.gguf", address="hf:o/n:c.gguf")


def test_a_repository_of_pickles_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"pytorch_model\.bin only, which can run code: ask"):
        choose("config.json", "pytorch_model.bin")


def test_a_repository_without_weights_is_refused() -> None:
    with pytest.raises(InvalidInput, match="has no weights"):
        choose("README.md", "onnx/model.onnx")
