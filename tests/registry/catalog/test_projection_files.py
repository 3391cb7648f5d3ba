"""Files of public text become one file that a projection learns from."""

from pathlib import Path

import pytest

from registry.catalog.documents import Document, parse, serialize
from registry.catalog.projection_files import as_projection_file
from registry.errors import InvalidInput


def write(path: Path, *texts: Document) -> Path:
    path.write_bytes(serialize(texts))
    return path


def test_a_file_without_domains_is_one_domain_and_domains_in_a_file_stay(tmp_path: Path) -> None:
    named = write(tmp_path / "named.jsonl", Document("1", "a", "train", "law"))
    plain = write(tmp_path / "code.jsonl", Document("1", "b", "train"))
    with as_projection_file([named, plain]) as path:
        joined = parse([path.read_bytes()])
    assert [(text.id, text.domain) for text in joined] == [("named/1", "law"), ("code/1", "code")]
    assert not path.exists()


def test_two_files_of_one_name_and_one_domain_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = write(tmp_path / "law.jsonl", Document("1", "a", "train"))
    two = write(tmp_path / "other" / "law.jsonl", Document("1", "b", "train"))
    with pytest.raises(InvalidInput, match="have the same name"), as_projection_file([one, two]):
        pass
    with pytest.raises(InvalidInput, match="two domains or more"), as_projection_file([one]):
        pass
