"""The folder of a backup: what is in it, and the manifest that says so.

    backup.json         the manifest, written last
    database-N.dump     the database, in PostgreSQL's custom format
    blobs-N.txt         the digests and sizes of the blobs that it needs
    blobs/ab/cd...      the blobs
    signing-key.pem, api-key

N counts the backups into the folder. Blobs that are there are not copied again. The backup before
stays whole until the manifest names the new one.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.blobs.blobs import LocalBlobs, sync_folder
from registry.disk import reserve_on
from registry.errors import Conflict, InvalidInput

MANIFEST = "backup.json"
CHUNK_BYTES = 1 << 20


class File(BaseModel):
    """A file of a backup."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "File":
        """Describe a file of a backup."""
        return cls(name=path.name, num_bytes=path.stat().st_size, sha256=_sha256(path))


class BackupManifest(BaseModel):
    """What a backup has, and from where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    number: int = Field(description="How many backups were made into the folder.")
    installation: str = Field(description="Public signing key of the installation, in hexadecimal.")
    created_at: str = Field(description="When the database was read, in UTC.")
    version: str = Field(description="Version of nexusmix.")
    schema_version: str = Field(description="Revision of the tables.")
    server_version: int = Field(description="Major version of the PostgreSQL that was dumped.")
    database: File | None = Field(description="The dump; null while the first backup is made.")
    blobs: File | None = Field(description="The list of the blobs.")
    keys: list[File] = Field(description="Files of keys.")
    num_blobs: int = 0
    num_bytes: int = Field(default=0, description="Bytes of the blobs.")
    not_saved: list[str] = Field(
        default=[], description="Blobs that were missing or damaged when the backup was made."
    )


class BackupFolder:
    """A folder with a backup, or an empty one for the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs = LocalBlobs(path / "blobs", reserve_bytes=reserve_on(path))

    def read(self) -> BackupManifest:
        """Return the manifest. Raises InvalidInput if the folder has no whole backup."""
        manifest = self._manifest()
        if manifest is None:
            raise InvalidInput(f"{self.path} has no {MANIFEST}: it is no backup of nexusmix")
        if manifest.database is None:
            raise InvalidInput(f"the backup in {self.path} was interrupted: make it again")
        return manifest

    def begin(self, installation: str) -> BackupManifest | None:
        """Return the manifest of the backup before, None for the first one.

        Raises Conflict if the folder holds anything but a backup of this installation.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        manifest = self._manifest()
        if manifest is None and any(self.path.iterdir()):
            raise Conflict(f"{self.path} is not empty, and holds no backup of nexusmix")
        if manifest is not None and manifest.installation != installation:
            raise Conflict(f"{self.path} holds the backup of another installation")
        return manifest

    def write(self, manifest: BackupManifest) -> None:
        """Write the manifest, all of it or nothing."""
        incoming = self.path / f".{MANIFEST}"
        incoming.write_text(manifest.model_dump_json(indent=2) + "\n")
        incoming.replace(self.path / MANIFEST)
        sync_folder(self.path)

    def check(self, file: File) -> Path:
        """Return the path of a file. Raises InvalidInput if it is not the one of the manifest."""
        path = self.path / file.name
        if not path.is_file():
            raise InvalidInput(f"{path} is missing: the backup is not whole")
        if _sha256(path) != file.sha256:
            raise InvalidInput(f"{path} is damaged: its SHA-256 is not that of {MANIFEST}")
        return path

    def listed(self, manifest: BackupManifest) -> Iterator[tuple[str, int]]:
        """Yield the digest and the size of each blob of the backup. Raises InvalidInput."""
        assert manifest.blobs is not None, "a whole backup has a list"
        for line in self.check(manifest.blobs).read_text().splitlines():
            digest, num_bytes = line.split()
            yield digest, int(num_bytes)

    def remove_others(self, manifest: BackupManifest) -> None:
        """Remove the files and blobs of the backup before that this one does not need."""
        assert manifest.database is not None
        assert manifest.blobs is not None
        wanted = {manifest.database.name, manifest.blobs.name}
        for pattern in ("database-*.dump", "blobs-*.txt"):
            for path in self.path.glob(pattern):
                if path.name not in wanted:
                    path.unlink()
        needed = {digest for digest, _ in self.listed(manifest)}
        for blob in self.blobs.stored():
            if blob.digest not in needed:
                self.blobs.discard(blob.digest)
        for half in self.blobs.root.glob("incoming-*"):
            half.unlink()

    def _manifest(self) -> BackupManifest | None:
        try:
            return BackupManifest.model_validate_json((self.path / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            if _format(self.path / MANIFEST) != 1:
                raise InvalidInput(
                    f"{self.path / MANIFEST} is of a newer version of nexusmix than this one"
                ) from error
            raise InvalidInput(f"{self.path / MANIFEST} is damaged") from error


def _format(path: Path) -> object:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return 1
    return content.get("format") if isinstance(content, dict) else 1


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
