"""The default texts that a projection learns from: public text of several domains, in one file."""

from pathlib import Path

from assembler.demo.corpora import domains
from assembler.progress import OnMessage
from registry.settings import settings

# Several times as much as a projection reads; more would only make the first run longer.
DOCUMENTS_PER_DOMAIN = 400


def fetch(*, on_progress: OnMessage) -> Path:
    """Return a JSON Lines file with the documents of all of `domains.PROJECTION_DOMAINS`.

    Missing packages are fetched and cached. Raises Unavailable as `domains.fetch`.
    """
    texts = domains.fetch(
        domains.PROJECTION_DOMAINS, limit=DOCUMENTS_PER_DOMAIN, on_progress=on_progress
    )
    path = settings().cache_path / "projection.jsonl"
    path.write_bytes(b"".join(file.read_bytes() for file in texts.values()))
    return path
