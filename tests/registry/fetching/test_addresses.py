"""Addresses that experts are imported from."""

import pytest

from registry.errors import InvalidInput
from registry.fetching import addresses
from registry.fetching.addresses import Address, HubAddress, PeerAddress, UrlAddress


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:owner/name", HubAddress("owner/name")),
        ("hf:gpt2", HubAddress("gpt2")),
        ("hf:owner/name@v1.0", HubAddress("owner/name", "v1.0")),
        ("hf:owner/name@refs/pr/3", HubAddress("owner/name", "refs/pr/3")),
        ("hf:o/n@main:a-Q4_K_M.gguf", HubAddress("o/n", "main", "a-Q4_K_M.gguf")),
        ("hf:o/n:a.gguf", HubAddress("o/n", "main", "a.gguf")),
        ("https://huggingface.co/o/n", HubAddress("o/n")),
        ("nexusmix:https://a.b:8421/law@3", PeerAddress("https://a.b:8421", "law@3")),
        ("nexusmix:http://127.0.0.1:8421/law", PeerAddress("http://127.0.0.1:8421", "law")),
        ("https://huggingface.co/o/n/tree/v2", HubAddress("o/n", "v2")),
        ("https://huggingface.co/o/n/tree/refs%2Fpr%2F3", HubAddress("o/n", "refs/pr/3")),
        ("https://hf.co/o/n/blob/main/a.gguf", HubAddress("o/n", "main", "a.gguf")),
        ("https://huggingface.co/o/n/resolve/main/a.gguf?x=1", HubAddress("o/n", "main", "a.gguf")),
    ],
)
def test_an_address_is_read(text: str, expected: Address) -> None:
    assert addresses.parse(text) == expected
    assert addresses.parse(str(expected)) == expected


def test_the_address_of_a_file_is_shown_without_what_may_be_a_permission() -> None:
    address = addresses.parse("https://example.com/x/my%20model.gguf?signature=secret")
    assert isinstance(address, UrlAddress)
    assert address.file == "my model.gguf"
    assert str(address) == "https://example.com/x/my%20model.gguf"
    assert addresses.parse("http://127.0.0.1:80/a.gguf") == UrlAddress("http://127.0.0.1:80/a.gguf")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf:",
        "hf:a/b/c",
        "hf:../secrets",
        "hf:o/n@",
        "hf:o/n@../../main",
        "hf:o/n:",
        "hf:o/n:model.bin",
        "hf:o/n:folder/a.gguf",
        "hf:o/n\n",
        "hf:" + "a" * 2000,
        "ftp://huggingface.co/o/n",
        "http://huggingface.co/o/n",
        "https://huggingface.co/o",
        "https://huggingface.co/datasets/o/n",
        "https://example.com/model.safetensors",
        "https://example.com/",
        "https://example.com/a.gguf#part",
        "https://user:word@example.com/a.gguf",
        "https://example.com:port/a.gguf",
        "https://[example/a.gguf",
        "https://example.com/a b.gguf",
        "https:///a.gguf",
        "s3://bucket/key",
        "nexusmix:",
        "nexusmix:law@1",
        "nexusmix:ftp://a/law",
        "nexusmix:https://a/",
        "nexusmix:https://a/law@0",
        "nexusmix:https://a/law/1",
        "nexusmix:https://a/law?x=1",
        "nexusmix:https://user:word@a/law",
        "/a/folder",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be imported") as refused:
        addresses.parse(text, at="/from")
    assert refused.value.problems[0].pointer == "/from"
