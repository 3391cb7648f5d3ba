"""Saves an installation to a folder while it runs: database, blobs and keys.

The database comes first, as of one moment. Blobs are written before the rows that name them and
never change, and none is removed while the backup runs. So every row of the dump finds its blobs.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry import private_files
from registry.blobs.blobs import StoreUpkeep, sync_folder
from registry.checkpoints.attestations import public_key, signing_key
from registry.database import db
from registry.disk import check_room, refusing_full_disk
from registry.errors import Conflict, InvalidInput, NotFound
from registry.settings import settings
from service.housekeeping import collection, installation, needed_blobs, pg_programs
from service.housekeeping.backup_folder import BackupFolder, BackupManifest, File
from service.housekeeping.needed_blobs import NeededBlobs

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Saved:
    """A backup: its manifest, and how many blobs of how many bytes were copied for it.

    `lost` names each blob that is missing or damaged, with what needs it.
    """

    manifest: BackupManifest
    num_copied: int
    num_bytes: int
    lost: dict[str, list[str]]


def save(target: Path, blobs: StoreUpkeep, *, on_bytes: OnBytes) -> Saved:
    """Make a backup into `target`, which is empty or has the backup before.

    Call it inside `installation.opened`. `on_bytes` gets the number of bytes that are copied.
    Raises Conflict if the folder has something else, or while another process keeps house;
    OutOfSpace, StepFailed and Unavailable.
    """
    config = settings()
    identity = public_key(signing_key(config.signing_key_path))
    folder = BackupFolder(target)
    before = folder.begin(identity)
    number = 1 if before is None else before.number + 1
    # It holds secrets and documents.
    private_files.close_to_others(target)
    check_room(target)
    with _nothing_is_removed(), refusing_full_disk(target):
        if before is None:
            folder.write(_manifest(identity, number, server_version=0, schema=""))
        dump_path = target / f"database-{number}.dump"
        needed, schema, server_version = _dump(dump_path, blobs)
        copied, num_bytes, lost = _copy(needed, blobs, folder, on_bytes)
        list_path = target / f"blobs-{number}.txt"
        list_path.write_text(_list(needed, folder, lost))
        present = [size for _, size in _sizes(needed, folder, lost)]
        manifest = _manifest(identity, number, server_version=server_version, schema=schema)
        manifest = manifest.model_copy(
            update={
                "database": File.of(dump_path),
                "blobs": File.of(list_path),
                "keys": [_copy_key(path, target) for path in key_files() if path.exists()],
                "num_blobs": len(present),
                "num_bytes": sum(present),
                "not_saved": sorted(lost),
            }
        )
        folder.write(manifest)
        folder.remove_others(manifest)
    return Saved(manifest, copied, num_bytes, {d: needed.needed_by[d] for d in sorted(lost)})


def key_files() -> tuple[Path, ...]:
    """Return the files of this installation's secrets."""
    return settings().signing_key_path, settings().key_path


@contextmanager
def _nothing_is_removed() -> Iterator[None]:
    with collection.alone() as alone:
        if not alone:
            raise Conflict("another process keeps house at the moment; try again when it has ended")
        yield


def _manifest(identity: str, number: int, *, server_version: int, schema: str) -> BackupManifest:
    return BackupManifest(
        number=number,
        installation=identity,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("nexusmix"),
        schema_version=schema,
        server_version=server_version,
        database=None,
        blobs=None,
        keys=[],
    )


def _dump(path: Path, blobs: StoreUpkeep) -> tuple[NeededBlobs, str, int]:
    """Dump the database; return the blobs, the schema and the server's version of that moment."""
    url = settings().database_url
    assert url is not None, "the installation is opened"
    schema = installation.schema_version()
    if schema is None:
        raise NotFound("the database has no tables yet: there is nothing to save")
    with db.transaction(maintenance=True) as session:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        named = list(needed_blobs.roots(session))
        snapshot = str(session.scalar(text("SELECT pg_export_snapshot()")))
        server_version = server_version_of(session)
        pg_programs.dump(url, path, snapshot=snapshot, server_version=server_version)
    return needed_blobs.follow(named, blobs), schema, server_version


def server_version_of(session: Session) -> int:
    """Return the major version of the PostgreSQL server."""
    return int(session.scalar(text("SHOW server_version_num")) or 0) // 10_000


def _copy(
    needed: NeededBlobs, blobs: StoreUpkeep, folder: BackupFolder, on_bytes: OnBytes
) -> tuple[int, int, set[str]]:
    """Copy the blobs that the folder does not have; return their number and bytes, and the lost."""
    num, num_bytes, lost = 0, 0, set[str]()
    for digest in sorted(needed.needed_by):
        if folder.blobs.size(digest) is not None:
            continue
        try:
            folder.blobs.put(_counted(blobs.read_stored(digest), on_bytes), digest=digest)
        except (NotFound, InvalidInput):
            # Missing, or other bytes than its digest names. An upload may not have sent it yet.
            if digest in needed.required:
                lost.add(digest)
            continue
        num += 1
        num_bytes += folder.blobs.size(digest) or 0
    return num, num_bytes, lost


def _counted(chunks: Iterator[bytes], on_bytes: OnBytes) -> Iterator[bytes]:
    for chunk in chunks:
        on_bytes(len(chunk))
        yield chunk


def _sizes(needed: NeededBlobs, folder: BackupFolder, lost: set[str]) -> Iterator[tuple[str, int]]:
    for digest in sorted(needed.needed_by.keys() - lost):
        size = folder.blobs.size(digest)
        if size is not None:
            yield digest, size


def _list(needed: NeededBlobs, folder: BackupFolder, lost: set[str]) -> str:
    return "".join(f"{digest} {size}\n" for digest, size in _sizes(needed, folder, lost))


def _copy_key(path: Path, target: Path) -> File:
    """Copy a secret, readable by its owner only."""
    copy = target / path.name
    incoming = target / f".{path.name}"
    incoming.unlink(missing_ok=True)
    handle = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file, path.open("rb") as source:
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())
    incoming.replace(copy)
    sync_folder(target)
    return File.of(copy)
