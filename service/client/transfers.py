"""Sends blobs and fetches files, and tells how far it is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.checkpoints.exports import OnBytes, new_folder
from registry.ingest.sources import Source
from service.client.connection import API, Connection
from service.schemas.checkpoints import FilesBody, MissingBlob


@dataclass(frozen=True)
class Transfer:
    """Progress of an upload: the bytes sent so far, and the bytes to send in all."""

    num_sent: int
    num_bytes: int


OnTransfer = Callable[[Transfer], None]


def ignore(transfer: Transfer) -> None:
    """Drop the progress of an upload that nobody watches."""


def send_blobs(
    connection: Connection,
    blobs: Sequence[MissingBlob],
    sources: Mapping[str, Source],
    *,
    on_transfer: OnTransfer,
) -> None:
    """Send the blobs that the service asks for. `sources` maps digests to bytes on disk."""
    num_bytes = sum(sources[blob.digest].num_bytes for blob in blobs)
    num_before = 0
    for blob in blobs:
        source = sources[blob.digest]

        def on_sent(num_sent: int, num_before: int = num_before) -> None:
            on_transfer(Transfer(num_before + num_sent, num_bytes))

        connection.send(blob, source, on_sent=on_sent)
        num_before += source.num_bytes


def send_file(connection: Connection, path: Path) -> str:
    """Send a file as one blob, unless the service has it. Returns its digest."""
    source = Source.whole(path)
    digest = source.digest()
    if not connection.has_blob(digest):
        blob = MissingBlob(digest=digest, size=source.num_bytes, url=f"{API}/blobs/{digest}")
        send_blobs(connection, [blob], {digest: source}, on_transfer=ignore)
    return digest


def fetch_files(connection: Connection, path: str, folder: Path, *, on_bytes: OnBytes) -> None:
    """Fetch the files listed at `path` of the API into a new folder.

    Raises Conflict when `folder` exists.
    """
    files = FilesBody.model_validate(connection.get(path)).data
    with new_folder(folder, num_bytes=sum(file.size for file in files)) as incoming:
        for file in files:
            # The name comes from a server; keep it inside the folder.
            with (incoming / Path(file.name).name).open("wb") as target:
                connection.fetch(
                    f"{path}/{file.name}", target, num_bytes=file.size, on_bytes=on_bytes
                )
