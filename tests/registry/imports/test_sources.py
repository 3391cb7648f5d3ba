"""A version keeps what it is imported from."""

from registry.imports.sources import Source


def test_a_source_is_read_as_it_was_written() -> None:
    source = Source(kind="adapter", digest="a", size=3, config={"r": 4}, files={"x.json": "b"})
    assert Source.from_json(source.to_json()) == source
    assert source.digests() == {"a", "b"}
