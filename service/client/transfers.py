"""Sends blobs and fetches files, and tells how far it is."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from registry.checkpoints.exports import OnBytes, new_folder
from registry.errors import InvalidCheckpoint
from registry.ingest.sources import Sendable, Source
from service.client.connection import API, Connection
from service.schemas.checkpoints import FilesBody, MissingBlob

# The service waits for its disk with each blob, and checkpoints have hundreds of small ones.
NUM_AT_A_TIME = 4


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
    sources: Mapping[str, Sendable],
    *,
    on_transfer: OnTransfer,
) -> None:
    """Send the blobs that the service asks for. `sources` maps digests to bytes.

    While the service writes one to its disk, others are on their way. `on_transfer` is called from
    the calling thread; if it raises, no further blob is sent.
    """
    num_bytes = sum(sources[blob.digest].num_bytes for blob in blobs)
    num_sent = {blob.digest: 0 for blob in blobs}
    # What the threads tell: how much of a blob is sent, or that it has ended.
    news: SimpleQueue[tuple[str, int] | Future[None]] = SimpleQueue()

    def send(blob: MissingBlob) -> None:
        def on_sent(count: int) -> None:
            news.put((blob.digest, count))

        connection.send(blob, sources[blob.digest], on_sent=on_sent)

    with ThreadPoolExecutor(NUM_AT_A_TIME) as pool:
        try:
            for blob in blobs:
                pool.submit(send, blob).add_done_callback(news.put)
            num_left = len(blobs)
            while num_left:
                told = news.get()
                if isinstance(told, Future):
                    told.result()
                    num_left -= 1
                else:
                    digest, count = told
                    num_sent[digest] = count
                    on_transfer(Transfer(sum(num_sent.values()), num_bytes))
        finally:
            # What is on its way arrives, so that it need not be sent again.
            pool.shutdown(cancel_futures=True)


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

    Raises Conflict when `folder` exists, and InvalidCheckpoint for a file with another digest.
    """
    files = FilesBody.model_validate(connection.get(path)).data
    with new_folder(folder, num_bytes=sum(file.size for file in files)) as incoming:
        for file in files:
            # The name comes from a server; keep it inside the folder.
            with (incoming / Path(file.name).name).open("w+b") as target:
                connection.fetch(
                    f"{path}/{file.name}", target, num_bytes=file.size, on_bytes=on_bytes
                )
                target.seek(0)
                if file.digest not in (None, hashlib.file_digest(target, "sha256").hexdigest()):
                    raise InvalidCheckpoint(f"{file.name} arrived damaged: fetch it again")
