"""Only one process at a time fetches texts."""

import fcntl
from pathlib import Path

import pytest

from assembler.demo.corpora import domains, readers
from assembler.demo.corpora.domains import Domain
from registry.settings import settings


def nothing(source: Path) -> readers.Texts:
    raise AssertionError("another process has read it")


DOMAIN = Domain("poems", "Poems", "CC0-1.0", None, nothing)


@pytest.mark.usefixtures("home")
def test_the_second_process_waits_and_uses_the_fetched_texts() -> None:
    cache = settings().cache_path / "corpora" / str(domains.EXTRACTION)
    cache.mkdir(parents=True)
    with (cache / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def finish(message: str) -> None:
            assert message == "waiting for another process that fetches texts"
            (cache / "poems-7").mkdir()
            fcntl.flock(other, fcntl.LOCK_UN)

        found = domains.fetch([DOMAIN], limit=7, on_progress=finish)
    assert found == {"poems": cache / "poems-7" / domains.DOCUMENTS}
