"""Check, tidy, save and restore an installation."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from service.cli.needs_server import needs_server

app = typer.Typer()
command = partial(app.command, rich_help_panel="Operation")


@command()
@needs_server
def fsck(
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare names and sizes only; read no bytes.")
    ] = False,
    discard_damaged: Annotated[
        bool,
        typer.Option(
            "--discard-damaged",
            help="Delete damaged blobs, so that they count as missing: registering the same folder"
            " again sends them.",
        ),
    ] = False,
) -> None:
    """Check every blob, and name each missing or damaged one and what needs it.

    Ends with 1 if it finds any. It works while the service runs and while it does not.
    """
    from registry.blobs import blob_stores
    from registry.database import db
    from service.housekeeping import fsck as checks
    from service.housekeeping import installation, needed_blobs
    from service.housekeeping.fsck import Fault
    from service.terminal.console import console, copying

    found = []
    with installation.opened():
        store = blob_stores.store()
        with db.transaction() as session:
            needed = needed_blobs.find(session, store)
        num_bytes = 0 if quick else sum(blob.num_bytes for blob in store.stored())
        with copying("checking", num_bytes=num_bytes) as on_bytes:
            for finding in checks.check(store, needed, on_bytes=on_bytes, quick=quick):
                found.append(finding)
                if discard_damaged and finding.fault is Fault.DAMAGED:
                    store.discard(finding.digest)
    for finding in found:
        console.print(str(finding), markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(needed.needed_by)} blobs are needed; {len(found)} are missing or damaged")
    if found:
        sys.exit(1)


@command()
@needs_server
def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be removed.")
    ] = False,
) -> None:
    """Remove what nobody needs any more: blobs, half uploads, old caches, events and logs.

    The service does this by itself. A blob that nothing needs is first set aside, and deleted after
    a grace period. It works while the service runs and while it does not.
    """
    from registry.blobs import blob_stores
    from registry.errors import Conflict
    from service.housekeeping import collection, installation
    from service.terminal.console import print_rows

    with installation.opened(), collection.alone() as alone:
        if not alone:
            raise Conflict("another process keeps house at the moment; try again when it has ended")
        removals = collection.collect(blob_stores.store(), dry_run=dry_run)
    print_rows(
        ("would be removed" if dry_run else "removed", "number", "MB", ""),
        [
            (
                r.what,
                f"{r.num:,}",
                "" if r.num_bytes is None else f"{r.num_bytes / 1e6:.1f}",
                r.note,
            )
            for r in removals
        ],
    )


@command()
@needs_server
def backup(
    target: Annotated[
        Path, typer.Argument(help="An empty folder, or one with the backup before this one.")
    ],
) -> None:
    """Save database, tensors and keys to a folder, while the service runs or not.

    Tensors that the folder has are not copied again. Ends with 1 if a tensor is missing or damaged;
    all the others are saved. The folder then holds the keys of the installation.
    """
    from registry.blobs import blob_stores
    from service.housekeeping import backup as backups
    from service.housekeeping import installation
    from service.terminal.console import console, copying

    with installation.opened(any_schema=True):
        store = blob_stores.store()
        num_bytes = sum(blob.num_bytes for blob in store.stored())
        with copying("saving", num_bytes=num_bytes) as on_bytes:
            saved = backups.save(target, store, on_bytes=on_bytes)
    manifest = saved.manifest
    console.print(
        f"{target}: the installation as of {manifest.created_at}, {manifest.num_blobs} blobs of"
        f" {manifest.num_bytes / 1e6:.1f} MB, {saved.num_copied} of them copied now"
    )
    for digest, reasons in saved.lost.items():
        line = f"NOT SAVED, missing or damaged: {digest}: {'; '.join(reasons)}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if saved.lost:
        sys.exit(1)


@command()
@needs_server
def restore(
    source: Annotated[Path, typer.Argument(help="The folder of a backup.")],
) -> None:
    """Restore a backup into an empty NEXUSMIX_HOME, and an empty database or bucket of your own.

    Every tensor is hashed. An interrupted restore can be repeated. Ends with 1 if the backup lacks
    tensors, which it then names.
    """
    from registry.blobs import blob_stores
    from registry.settings import settings
    from service.housekeeping import restore as restores
    from service.housekeeping.backup_folder import BackupFolder
    from service.terminal.console import console, copying

    num_bytes = BackupFolder(source).read().num_bytes
    with copying("restoring", num_bytes=num_bytes) as on_bytes:
        lacking = restores.restore(source, blob_stores.store, on_bytes=on_bytes)
    console.print(f"{source} is restored into {settings().home}; start it with `nexusmix up`")
    for digest in lacking:
        console.print(f"the backup lacks {digest}; `nexusmix fsck` names what needs it")
    if lacking:
        sys.exit(1)
