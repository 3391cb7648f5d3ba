"""Makes an installation from a backup, in an empty data folder and an empty database."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import inspect
from sqlalchemy.orm import Session

import migrations
from registry.blobs.blobs import BlobStore, StoreUpkeep
from registry.database import db
from registry.errors import Conflict, InvalidInput
from registry.settings import settings
from service import home
from service.housekeeping import installation, needed_blobs, pg_programs
from service.housekeeping.backup import key_files, server_version_of
from service.housekeeping.backup_folder import BackupFolder, BackupManifest

SCHEMAS = ("public", "dbos")

OnBytes = Callable[[int], None]


def restore(source: Path, open_store: Callable[[], StoreUpkeep], *, on_bytes: OnBytes) -> list[str]:
    """Restore the backup in `source`; return the digests of needed blobs that it does not have.

    A restore that was interrupted can be repeated. Everything is checked before anything is
    written, and each blob is hashed. Call it from the main thread. Raises InvalidInput for a backup
    that is not whole or newer than this program, and Conflict if the data folder, the database or
    the bucket is not empty.
    """
    folder = BackupFolder(source)
    manifest = folder.read()
    _check_version(manifest)
    assert manifest.database is not None
    dump = folder.check(manifest.database)
    keys = [folder.check(key) for key in manifest.keys]
    listed = dict(folder.listed(manifest))
    with _held(manifest) as is_repeated, installation.fresh() as url:
        store = open_store()
        if not is_repeated:
            _check_empty(store)
        _copy_blobs(listed, folder, store, on_bytes)
        _restore_database(url, dump, is_repeated=is_repeated)
        migrations.upgrade(url)
        _copy_keys(keys)
        with db.transaction() as session:
            needed = needed_blobs.find(session, store)
    return sorted(digest for digest in needed.required if store.size(digest) is None)


def _check_version(manifest: BackupManifest) -> None:
    if manifest.schema_version not in migrations.revisions():
        raise InvalidInput(
            f"the backup was made by nexusmix {manifest.version} with tables of version"
            f" {manifest.schema_version}, which this version does not know: install that one"
        )


@contextmanager
def _held(manifest: BackupManifest) -> Iterator[bool]:
    """Hold the data folder; yield whether an interrupted restore of this backup is repeated."""
    root = settings().home
    assert manifest.database is not None
    address = "no address: a backup is restored"
    with home.held(root, address=address, min_free_bytes=0, is_restore=True):
        marker = root / home.UNFINISHED_RESTORE
        is_repeated = marker.exists()
        if is_repeated and marker.read_text() != manifest.database.sha256:
            raise Conflict(f"another backup was being restored into {root}: empty the folder first")
        if not is_repeated:
            _check_empty_home(root)
            marker.write_text(manifest.database.sha256)
        yield is_repeated
        marker.unlink()


def _check_empty_home(root: Path) -> None:
    found = [path.name for path in (settings().postgres_path, *key_files()) if path.exists()]
    found += [settings().blobs_path.name] if any(settings().blobs_path.glob("*/*")) else []
    if found:
        raise Conflict(
            f"{root} holds an installation already ({', '.join(found)}): NEXUSMIX_HOME names an"
            " empty folder to restore into"
        )


def _check_empty(store: StoreUpkeep) -> None:
    if any(True for _ in store.stored()):
        raise Conflict("the store holds tensors already: restore into an empty bucket")
    with db.engine().connect() as connection:
        tables = [t for schema in SCHEMAS for t in inspect(connection).get_table_names(schema)]
    if tables:
        raise Conflict(f"the database has tables already ({tables[0]}): restore into an empty one")


def _copy_blobs(
    listed: dict[str, int], folder: BackupFolder, store: BlobStore, on_bytes: OnBytes
) -> None:
    """Copy and hash all blobs but those that an interrupted restore has copied."""
    for digest, num_bytes in listed.items():
        if store.size(digest) != num_bytes:
            try:
                store.put(folder.blobs.read(digest), digest=digest, overwrite=True)
            except InvalidInput as error:
                raise InvalidInput(f"blob {digest} of the backup is damaged") from error
        on_bytes(num_bytes)


def _restore_database(url: str, dump: Path, *, is_repeated: bool) -> None:
    with Session(db.engine()) as session:
        version = server_version_of(session)
        if is_repeated and inspect(session.connection()).get_table_names("public"):
            return  # it was restored, as a whole
    pg_programs.restore(url, dump, server_version=version)


def _copy_keys(keys: list[Path]) -> None:
    for key in keys:
        target = settings().home / key.name
        shutil.copyfile(key, target)
        target.chmod(0o600)
