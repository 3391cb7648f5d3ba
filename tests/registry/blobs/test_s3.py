"""The S3 store works with a real server.

Covers: blob_stores.
"""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from registry.blobs.blob_stores import open_store
from registry.blobs.blobs import CHUNK_BYTES, LocalBlobs, put_bytes
from registry.blobs.s3 import MAX_PUT_BYTES, S3Blobs
from registry.errors import InvalidInput, NotFound, TooLarge, Unavailable
from registry.settings import Settings
from tests import seaweed

DATA = bytes(range(256)) * 5000  # More than one chunk.
DIGEST = hashlib.sha256(DATA).hexdigest()
SENDER = 7


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[seaweed.SeaweedServer]:
    with seaweed.SeaweedServer(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


def settings_for(server: seaweed.SeaweedServer, home: Path) -> Settings:
    return Settings(
        home=home,
        s3_bucket=seaweed.BUCKET,
        s3_endpoint_url=server.endpoint_url,
        s3_access_key_id=SecretStr(seaweed.KEY),
        s3_secret_access_key=SecretStr(seaweed.SECRET),
    )


@pytest.fixture
def store(server: seaweed.SeaweedServer, tmp_path: Path) -> Iterator[S3Blobs]:
    store = open_for(server, tmp_path / "one")
    yield store
    store.client.close()


def open_for(server: seaweed.SeaweedServer, home: Path) -> S3Blobs:
    """Return the store of a host with an empty cache and an empty bucket."""
    store = open_store(settings_for(server, home))
    assert isinstance(store, S3Blobs)
    for found in store.client.list_objects_v2(Bucket=store.bucket).get("Contents", []):
        store.client.delete_object(Bucket=store.bucket, Key=found["Key"])
    return store


def other_host(store: S3Blobs, tmp_path: Path) -> S3Blobs:
    return S3Blobs(store.client, bucket=store.bucket, cache=LocalBlobs(tmp_path / "other"))


def test_a_blob_of_one_host_is_read_by_another(store: S3Blobs, tmp_path: Path) -> None:
    assert put_bytes(store, DATA) == DIGEST
    reader = other_host(store, tmp_path)
    assert reader.size(DIGEST) == len(DATA)
    assert b"".join(reader.read(DIGEST)) == DATA
    assert reader.cache.size(DIGEST) is None, "a stream leaves nothing behind"


def test_a_local_path_is_fetched_once(store: S3Blobs, tmp_path: Path) -> None:
    put_bytes(store, DATA)
    reader = other_host(store, tmp_path)
    assert reader.local_path(DIGEST).read_bytes() == DATA
    store.client.delete_object(Bucket=store.bucket, Key=f"blobs/{DIGEST}")
    assert reader.local_path(DIGEST).read_bytes() == DATA


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 10), (7, 7), (CHUNK_BYTES - 1, CHUNK_BYTES + 1), (len(DATA) - 3, None), (len(DATA), None)],
)
def test_a_range_is_read(store: S3Blobs, tmp_path: Path, start: int, end: int | None) -> None:
    put_bytes(store, DATA)
    reader = other_host(store, tmp_path)
    assert b"".join(reader.read(DIGEST, start=start, end=end)) == DATA[start:end]


def test_a_second_put_keeps_the_blob(store: S3Blobs) -> None:
    put_bytes(store, DATA)
    [first] = store.stored()
    put_bytes(store, DATA)
    [second] = store.stored()
    assert (second.digest, second.num_bytes) == (DIGEST, len(DATA))
    assert second.written_at >= first.written_at
    assert store.client.head_object(Bucket=store.bucket, Key=f"blobs/{DIGEST}")


def test_a_damaged_object_is_repaired_by_a_put_that_overwrites(store: S3Blobs) -> None:
    store.client.put_object(Bucket=store.bucket, Key=f"blobs/{DIGEST}", Body=b"rotten")
    put_bytes(store, DATA)
    assert b"".join(store.read_stored(DIGEST)) == b"rotten"
    store.put([DATA], digest=DIGEST, overwrite=True)
    assert b"".join(store.read_stored(DIGEST)) == DATA


@pytest.mark.parametrize(
    "ask",
    [
        S3Blobs.size,
        S3Blobs.keep,
        S3Blobs.local_path,
        lambda store, digest: b"".join(store.read(digest)),
        lambda store, digest: put_bytes(store, DATA),
    ],
    ids=["size", "keep", "path", "read", "put"],
)
def test_a_blob_that_is_set_aside_comes_back(
    store: S3Blobs, tmp_path: Path, ask: Callable[[S3Blobs, str], object]
) -> None:
    put_bytes(store, DATA)
    store.set_aside(DIGEST)
    assert ([*store.stored()], [found.digest for found in store.aside()]) == ([], [DIGEST])
    assert ask(other_host(store, tmp_path), DIGEST)
    assert [found.digest for found in store.stored()] == [DIGEST]
    store.delete_aside(DIGEST)
    assert b"".join(store.read_stored(DIGEST)) == DATA


def test_a_blob_is_deleted_in_two_steps(store: S3Blobs, tmp_path: Path) -> None:
    put_bytes(store, DATA)
    store.set_aside(DIGEST)
    store.delete_aside(DIGEST)
    assert store.size(DIGEST) is None
    assert store.keep(DIGEST) is None
    store.set_aside(DIGEST)


def test_a_discarded_blob_is_gone_from_the_cache_too(store: S3Blobs) -> None:
    put_bytes(store, DATA)
    store.discard(DIGEST)
    with pytest.raises(NotFound):
        list(store.read(DIGEST))


def test_an_absent_blob_is_not_found(store: S3Blobs) -> None:
    assert store.size(DIGEST) is None
    with pytest.raises(NotFound):
        list(store.read(DIGEST))
    with pytest.raises(NotFound):
        store.local_path(DIGEST)


def test_a_put_of_other_bytes_is_not_stored(store: S3Blobs) -> None:
    with pytest.raises(InvalidInput, match="announced was"):
        store.put([b"other"], digest=DIGEST)
    assert store.size(DIGEST) is None


def test_a_corrupt_object_is_not_cached(store: S3Blobs) -> None:
    store.client.put_object(Bucket=store.bucket, Key=f"blobs/{DIGEST}", Body=b"rotten")
    with pytest.raises(Unavailable, match="other bytes"):
        store.local_path(DIGEST)
    assert store.cache.size(DIGEST) is None


def send(store: S3Blobs, data: bytes) -> httpx.Response:
    target = store.upload_target(DIGEST, num_bytes=len(DATA), seconds=60, sender=SENDER)
    return httpx.put(target.url, headers=target.headers, content=data)


def test_a_client_sends_to_the_bucket_itself(store: S3Blobs) -> None:
    assert send(store, DATA).status_code == 200
    assert store.size(DIGEST) is None, "it waits apart"
    assert store.accept(DIGEST, sender=SENDER)
    assert store.local_path(DIGEST).read_bytes() == DATA
    assert not store.accept(DIGEST, sender=SENDER), "nothing waits any more"


def test_a_blob_is_accepted_from_its_sender_only(store: S3Blobs) -> None:
    put_bytes(store, DATA)
    assert not store.accept(DIGEST, sender=SENDER)
    send(store, DATA)
    assert not store.accept(DIGEST, sender=SENDER + 1)
    assert store.accept(DIGEST, sender=SENDER)


def test_other_bytes_do_not_stand_for_a_stored_blob(store: S3Blobs) -> None:
    """A server that checks no checksum takes them."""
    put_bytes(store, DATA)
    key = f"incoming/{SENDER}/{DIGEST}"
    store.client.put_object(Bucket=store.bucket, Key=key, Body=b"guessed")
    assert not store.accept(DIGEST, sender=SENDER)
    assert not store.accept(DIGEST, sender=SENDER)
    assert b"".join(store.read(DIGEST)) == DATA


def test_the_bucket_refuses_other_bytes(store: S3Blobs) -> None:
    assert send(store, DATA[:-1] + b"?").is_client_error
    assert not store.accept(DIGEST, sender=SENDER)


def test_the_bucket_refuses_an_unsigned_put(store: S3Blobs) -> None:
    target = store.upload_target(DIGEST, num_bytes=len(DATA), seconds=60, sender=SENDER)
    assert httpx.put(target.url[:-4], headers=target.headers, content=DATA).is_client_error
    assert not store.accept(DIGEST, sender=SENDER)


def test_a_tensor_too_large_for_one_put_is_refused(store: S3Blobs) -> None:
    with pytest.raises(TooLarge):
        store.upload_target(DIGEST, num_bytes=MAX_PUT_BYTES + 1, seconds=60, sender=SENDER)


def test_a_wrong_digest_is_refused(store: S3Blobs) -> None:
    with pytest.raises(InvalidInput, match="not a SHA-256"):
        store.size("../secrets")


def test_a_wrong_secret_is_refused(server: seaweed.SeaweedServer, tmp_path: Path) -> None:
    config = settings_for(server, tmp_path)
    wrong = config.model_copy(update={"s3_secret_access_key": SecretStr("wrong")})
    with pytest.raises(Unavailable):
        put_bytes(open_store(wrong), DATA)


def test_a_stopped_server_is_unavailable(server: seaweed.SeaweedServer, tmp_path: Path) -> None:
    config = settings_for(server, tmp_path)
    gone = config.model_copy(update={"s3_endpoint_url": "http://127.0.0.1:1"})
    with pytest.raises(Unavailable, match="cannot be reached"):
        open_store(gone).size(DIGEST)


def test_what_was_sent_and_never_announced_is_removed(store: S3Blobs) -> None:
    put_bytes(store, DATA)
    store.client.put_object(Bucket=store.bucket, Key=f"incoming/1/{DIGEST}", Body=DATA)
    soon = datetime.now(UTC) + timedelta(minutes=1)
    assert store.remove_unaccepted(before=soon - timedelta(hours=1), dry_run=False) == 0
    assert store.remove_unaccepted(before=soon, dry_run=True) == 1
    assert store.remove_unaccepted(before=soon, dry_run=False) == 1
    assert not store.accept(DIGEST, sender=1)
    assert [blob.digest for blob in store.stored()] == [DIGEST]
