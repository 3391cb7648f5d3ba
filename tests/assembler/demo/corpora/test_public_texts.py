"""The default texts of a projection."""

from pathlib import Path

import pytest

from assembler.demo.corpora import domains, public_texts
from registry.catalog.documents import Document, group_by_domain, parse, serialize
from registry.settings import settings


def test_texts_that_were_fetched_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_HOME", str(tmp_path))
    settings.cache_clear()
    for domain in domains.PROJECTION_DOMAINS:
        name = f"{domain.name}-{public_texts.DOCUMENTS_PER_DOMAIN}"
        folder = settings().cache_path / "corpora" / str(domains.EXTRACTION) / name
        folder.mkdir(parents=True)
        texts = [Document(f"{domain.name}/1", "a text", "train", domain.name)]
        (folder / domains.DOCUMENTS).write_bytes(serialize(texts))
    path = public_texts.fetch(on_progress=print)
    grouped = group_by_domain(parse([path.read_bytes()]))
    assert list(grouped) == [domain.name for domain in domains.PROJECTION_DOMAINS]
