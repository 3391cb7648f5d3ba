"""A version keeps what it is imported from."""

from registry.checkpoints.manifests import Origin
from registry.imports import sources
from registry.imports.sources import Source


def test_a_source_is_read_as_it_was_written() -> None:
    source = Source(kind="adapter", digest="a", size=3, config={"r": 4}, files={"x.json": "b"})
    assert Source.from_json(source.to_json()) == source
    assert source.digests() == {"a", "b"}


def test_a_source_that_was_fetched_says_from_where() -> None:
    origin = Origin(address="hf:o/n@main", commit_hash="a" * 40)
    source = Source(kind="gguf", digest="a", size=3, origin=origin)
    assert Source.from_json(source.to_json()) == source
    assert "origin" not in Source(kind="gguf", digest="a", size=3).to_json()


def test_an_address_has_no_bytes_and_stays_itself_once_it_was_fetched() -> None:
    wanted = Source(kind="address", address="hf:o/n")
    assert Source.from_json(wanted.to_json()) == wanted
    assert wanted.digests() == set()
    found = Source(kind="adapter", digest="a", size=3, address="hf:o/n")
    assert sources.is_same(found.to_json(), wanted.to_json())
    assert not sources.is_same(Source(kind="gguf", digest="a").to_json(), wanted.to_json())
    assert not sources.is_same(None, wanted.to_json())
    assert not sources.is_same(found.to_json(), Source(kind="adapter", digest="a").to_json())
