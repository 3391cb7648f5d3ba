"""Blobs in an S3 bucket, with a local cache of fetched blobs.

This is the only module that uses boto3; it turns boto3's errors into ours.
"""

import base64
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from registry.blobs.blobs import (
    ASIDE,
    CHUNK_BYTES,
    LocalBlobs,
    StoredBlob,
    UploadTarget,
    digest_of,
)
from registry.errors import InvalidInput, NotFound, OutOfSpace, TooLarge, Unavailable
from registry.names import is_digest
from registry.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef, ObjectTypeDef

# The largest object that S3 takes in one request.
MAX_PUT_BYTES = 5 * 2**30
# Prefixes of the names of objects; the third one is `blobs.ASIDE`.
BLOBS = "blobs"
INCOMING = "incoming"
ABSENT = {"404", "NoSuchKey", "NotFound"}
REFUSED_BYTES = {
    "BadDigest",
    "InvalidDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
}
FULL = {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"}


class S3Blobs:
    """Stores objects `blobs/<digest>` in a bucket; `cache` holds local copies.

    What a client sends directly waits as `incoming/<sender>/<digest>`. So nobody counts as sender
    of a blob that somebody else has sent.
    """

    def __init__(self, client: "S3Client", *, bucket: str, cache: LocalBlobs) -> None:
        self.client = client
        self.bucket = bucket
        self.cache = cache

    @classmethod
    def from_settings(cls, config: Settings) -> Self:
        """Open the store of the settings. Without keys in them, boto3 looks for keys itself."""
        assert config.s3_bucket is not None
        key, secret = config.s3_access_key_id, config.s3_secret_access_key
        client = boto3.client(
            "s3",
            endpoint_url=config.s3_endpoint_url,
            aws_access_key_id=key.get_secret_value() if key else None,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=_client_config(own_server=config.s3_endpoint_url is not None),
        )
        return cls(
            client,
            bucket=config.s3_bucket,
            cache=LocalBlobs(config.blobs_path, reserve_bytes=config.disk_reserve_bytes),
        )

    def size(self, digest: str) -> int | None:
        try:
            return self._head(digest)["ContentLength"]
        except NotFound:
            return self._head(digest)["ContentLength"] if self._bring_back(digest) else None

    def keep(self, digest: str) -> int | None:
        try:
            self._copy(digest, BLOBS, BLOBS)
        except NotFound:
            if not self._bring_back(digest):
                return None
        return self.size(digest)

    def put(
        self, chunks: Iterable[bytes], *, digest: str | None = None, overwrite: bool = False
    ) -> str:
        # The digest is known only after all bytes, so they go to the cache first.
        digest = self.cache.put(chunks, digest=digest)
        path = self.cache.local_path(digest)
        if path.stat().st_size > MAX_PUT_BYTES:
            raise TooLarge(f"blob {digest} is larger than the {MAX_PUT_BYTES} bytes S3 takes")
        if not overwrite:
            with suppress(_AlreadyThere):
                self._send(digest, path, IfNoneMatch="*")
                return digest
            if self.keep(digest) is not None:
                return digest
        self._send(digest, path)
        return digest

    def read(self, digest: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        if self.cache.size(digest) is not None:
            yield from self.cache.read(digest, start=start, end=end)
            return
        if end is not None and end <= start:
            return
        byte_range = None if (start, end) == (0, None) else _range(start, end)
        with suppress(_BehindTheEnd):
            yield from self._fetched(digest, byte_range)

    def local_path(self, digest: str) -> Path:
        if self.cache.size(digest) is None:
            try:
                self.cache.put(self.read(digest), digest=digest)
            except InvalidInput as error:
                raise Unavailable(f"the object store holds other bytes: {error.detail}") from error
        # The copies that were not used for longest are removed first.
        self.cache.keep(digest)
        return self.cache.local_path(digest)

    def upload_target(
        self, digest: str, *, num_bytes: int, seconds: int, sender: int
    ) -> UploadTarget:
        """Return a presigned PUT. Its signature covers length and checksum, so S3 checks both."""
        if num_bytes > MAX_PUT_BYTES:
            raise TooLarge(f"{num_bytes} bytes, S3 takes at most {MAX_PUT_BYTES} at once")
        checksum = _checksum(digest)
        url = self.client.generate_presigned_url(
            "put_object",
            Params={
                **self._object(digest, f"{INCOMING}/{sender}"),
                "ContentLength": num_bytes,
                "ChecksumSHA256": checksum,
            },
            ExpiresIn=seconds,
        )
        return UploadTarget(url, {"x-amz-checksum-sha256": checksum})

    def accept(self, digest: str, *, sender: int) -> bool:
        place = f"{INCOMING}/{sender}"
        incoming = self._object(digest, place)
        try:
            with _translate_errors(digest):
                self.client.head_object(**incoming)
        except NotFound:
            return False
        is_sent = True
        with _translate_errors(digest):
            if self.size(digest) is None:
                self._copy(digest, place, BLOBS)
            else:
                # Not every server checks the checksum of a put. Other bytes must not give the
                # sender a blob of somebody else.
                with closing(self.client.get_object(**incoming)["Body"]) as body:
                    is_sent = digest_of(body.iter_chunks(CHUNK_BYTES)) == digest
            self.client.delete_object(**incoming)
        return is_sent

    def stored(self) -> Iterator[StoredBlob]:
        return self._listed(BLOBS)

    def read_stored(self, digest: str) -> Iterator[bytes]:
        return self._fetched(digest, None)

    def set_aside(self, digest: str) -> None:
        with suppress(NotFound):
            self._copy(digest, BLOBS, ASIDE)
            self._delete(digest, BLOBS)

    def aside(self) -> Iterator[StoredBlob]:
        return self._listed(ASIDE)

    def delete_aside(self, digest: str) -> None:
        self._delete(digest, ASIDE)

    def discard(self, digest: str) -> None:
        self.cache.discard(digest)
        self._delete(digest, BLOBS)

    def _send(self, digest: str, path: Path, **condition: Any) -> None:
        checksum = _checksum(digest)
        with path.open("rb") as body, _translate_errors(digest):
            self.client.put_object(
                **self._object(digest), Body=body, ChecksumSHA256=checksum, **condition
            )

    def remove_unaccepted(self, *, before: datetime, dry_run: bool) -> int:
        num = 0
        with _translate_errors(INCOMING):
            for found in self._objects(INCOMING):
                if found["LastModified"] < before:
                    num += 1
                    if not dry_run:
                        self.client.delete_object(Bucket=self.bucket, Key=found["Key"])
        return num

    def _fetched(self, digest: str, byte_range: str | None) -> Iterator[bytes]:
        """Yield a blob or a range of it from the bucket; bring it back if it was set aside."""
        wanted: dict[str, Any] = {} if byte_range is None else {"Range": byte_range}
        with _translate_errors(digest):
            try:
                found = self.client.get_object(**self._object(digest), **wanted)
            except self.client.exceptions.NoSuchKey:
                if not self._bring_back(digest):
                    raise
                found = self.client.get_object(**self._object(digest), **wanted)
            with closing(found["Body"]) as body:
                yield from body.iter_chunks(CHUNK_BYTES)

    def _head(self, digest: str) -> "HeadObjectOutputTypeDef":
        with _translate_errors(digest):
            return self.client.head_object(**self._object(digest))

    def _bring_back(self, digest: str) -> bool:
        """Put a blob back that was set aside; return whether it was there."""
        try:
            self._copy(digest, ASIDE, BLOBS)
        except NotFound:
            return False
        self._delete(digest, ASIDE)
        return True

    def _copy(self, digest: str, source: str, target: str) -> None:
        """Copy a blob inside the bucket; its age begins anew, also on the same place."""
        with _translate_errors(digest):
            self.client.copy_object(
                **self._object(digest, target),
                CopySource=self._object(digest, source),
                # S3 copies an object onto itself only if something about it changes.
                MetadataDirective="REPLACE",
            )

    def _delete(self, digest: str, folder: str) -> None:
        with _translate_errors(digest):
            self.client.delete_object(**self._object(digest, folder))

    def _listed(self, folder: str) -> Iterator[StoredBlob]:
        with _translate_errors(folder):
            for found in self._objects(folder):
                digest = found["Key"].removeprefix(f"{folder}/")
                if is_digest(digest):
                    yield StoredBlob(digest, found["Size"], found["LastModified"])

    def _objects(self, folder: str) -> Iterator["ObjectTypeDef"]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{folder}/"
        )
        for listed in pages:
            yield from listed.get("Contents", [])

    def _object(self, digest: str, folder: str = BLOBS) -> Any:
        if not is_digest(digest):
            raise InvalidInput(f"{digest!r} is not a SHA-256 in lower-case hexadecimal")
        return {"Bucket": self.bucket, "Key": f"{folder}/{digest}"}


class _AlreadyThere(Exception):
    """The conditional put found the blob, which has the same bytes by its name."""


class _BehindTheEnd(Exception):
    """The requested range begins after the last byte."""


@contextmanager
def _translate_errors(digest: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", "")
        if code in ABSENT:
            raise NotFound(f"no blob {digest}") from error
        if code in REFUSED_BYTES:
            raise InvalidInput(f"the bytes are not those of blob {digest}: {message}") from error
        if code in FULL:
            raise OutOfSpace(f"the object store is full: {message}") from error
        if code in ("412", "PreconditionFailed"):
            raise _AlreadyThere from error
        if code in ("416", "InvalidRange"):
            raise _BehindTheEnd from error
        raise Unavailable(f"the object store answers {code}: {message}") from error
    except BotoCoreError as error:
        raise Unavailable(f"the object store cannot be reached: {error}") from error


def _client_config(*, own_server: bool) -> Config:
    return Config(
        signature_version="s3v4",
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 3},
        # Each put has a SHA-256 checksum. A second one costs time, and older servers refuse it.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # Bucket names as subdomains of a private server's address rarely resolve.
        s3={"addressing_style": "path" if own_server else "auto"},
    )


def _checksum(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def _range(start: int, end: int | None) -> str:
    return f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"
