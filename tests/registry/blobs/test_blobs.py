"""Local blobs are complete or absent, whatever happens while they are written."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.blobs.blobs import LocalBlobs, get_bytes, put_bytes
from registry.errors import InvalidInput, NotFound
from tests import small_disk

ROOT = Path(__file__).parents[3]
DATA = b"tensor bytes"
DIGEST = hashlib.sha256(DATA).hexdigest()


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_blob_is_named_by_its_digest(blobs: LocalBlobs) -> None:
    assert put_bytes(blobs, DATA) == DIGEST
    assert blobs.size(DIGEST) == len(DATA)
    assert get_bytes(blobs, DIGEST) == DATA


def test_only_the_owner_can_read(blobs: LocalBlobs) -> None:
    before = os.umask(0)
    try:
        put_bytes(blobs, DATA)
    finally:
        os.umask(before)
    path = blobs.local_path(DIGEST)
    modes = [place.stat().st_mode & 0o777 for place in (path, path.parent, blobs.root)]
    assert modes == [0o400, 0o700, 0o700]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=50), start=st.integers(0, 60), length=st.integers(0, 60))
def test_a_range_is_read(blobs: LocalBlobs, data: bytes, start: int, length: int) -> None:
    digest = put_bytes(blobs, data)
    end = start + length
    assert b"".join(blobs.read(digest, start=start, end=end)) == data[start:end]


def test_wrong_bytes_are_not_stored(blobs: LocalBlobs) -> None:
    with pytest.raises(InvalidInput, match=f"announced was {DIGEST}"):
        blobs.put([b"other"], digest=DIGEST)
    assert files_below(blobs.root) == []


def test_a_broken_stream_leaves_nothing(blobs: LocalBlobs) -> None:
    def broken() -> Iterator[bytes]:
        yield DATA
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        blobs.put(broken())
    assert files_below(blobs.root) == []


def test_many_writers_may_write_one_blob(blobs: LocalBlobs) -> None:
    threads = [threading.Thread(target=put_bytes, args=(blobs, DATA)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in files_below(blobs.root)] == [DATA]


@pytest.mark.parametrize("digest", ["", "a", "A" * 64, "../" * 21 + "a", "g" * 64])
def test_a_wrong_digest_is_refused(blobs: LocalBlobs, digest: str) -> None:
    with pytest.raises(InvalidInput, match="not a SHA-256"):
        blobs.size(digest)


def test_an_absent_blob_is_not_found(blobs: LocalBlobs) -> None:
    assert blobs.size(DIGEST) is None
    with pytest.raises(NotFound):
        blobs.local_path(DIGEST)


def age(blobs: LocalBlobs, digest: str, *, seconds: int) -> None:
    """Let a blob look as if it was written so long ago."""
    path = blobs.local_path(digest)
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_the_age_begins_anew_when_a_blob_is_kept_or_written(blobs: LocalBlobs) -> None:
    put_bytes(blobs, DATA)
    for again in (lambda: blobs.keep(DIGEST), lambda: put_bytes(blobs, DATA)):
        age(blobs, DIGEST, seconds=1000)
        [old] = blobs.stored()
        again()
        [new] = blobs.stored()
        assert (new.digest, new.num_bytes) == (DIGEST, len(DATA))
        assert new.written_at - old.written_at > timedelta(seconds=900)


@pytest.mark.parametrize(
    "ask",
    [
        LocalBlobs.size,
        LocalBlobs.keep,
        LocalBlobs.local_path,
        get_bytes,
        lambda blobs, digest: put_bytes(blobs, DATA),
    ],
    ids=["size", "keep", "path", "read", "put"],
)
def test_a_blob_that_is_set_aside_comes_back(
    blobs: LocalBlobs, ask: Callable[[LocalBlobs, str], object]
) -> None:
    put_bytes(blobs, DATA)
    age(blobs, DIGEST, seconds=1000)
    before = datetime.now(UTC) - timedelta(seconds=100)
    blobs.set_aside(DIGEST)
    assert not [*blobs.stored()]
    [hidden] = blobs.aside()
    assert hidden.digest == DIGEST
    assert hidden.written_at > before, "its age began when it was set aside"
    assert ask(blobs, DIGEST)
    [back] = blobs.stored()
    assert back.written_at > before
    blobs.delete_aside(DIGEST)
    assert get_bytes(blobs, DIGEST) == DATA


def test_a_blob_is_deleted_in_two_steps(blobs: LocalBlobs) -> None:
    put_bytes(blobs, DATA)
    blobs.set_aside(DIGEST)
    blobs.delete_aside(DIGEST)
    assert (blobs.size(DIGEST), blobs.keep(DIGEST)) == (None, None)
    assert files_below(blobs.root) == []
    blobs.set_aside(DIGEST)


def test_readers_never_miss_a_blob_that_is_set_aside_again_and_again(blobs: LocalBlobs) -> None:
    put_bytes(blobs, DATA)
    stop = threading.Event()

    def hide() -> None:
        while not stop.is_set():
            blobs.set_aside(DIGEST)

    hider = threading.Thread(target=hide)
    hider.start()
    try:
        sizes = {blobs.size(DIGEST) for _ in range(300)} | {blobs.keep(DIGEST) for _ in range(300)}
    finally:
        stop.set()
        hider.join()
    assert sizes == {len(DATA)}


def test_a_discarded_blob_can_be_sent_again(blobs: LocalBlobs) -> None:
    put_bytes(blobs, DATA)
    blobs.discard(DIGEST)
    assert blobs.size(DIGEST) is None
    assert put_bytes(blobs, DATA) == DIGEST


def test_a_killed_writer_leaves_no_blob(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from registry.blobs.blobs import LocalBlobs\n"
        "def chunks():\n"
        "    yield b'half'; print('written', flush=True); sys.stdin.read(); yield b'rest'\n"
        "LocalBlobs(pathlib.Path(sys.argv[1])).put(chunks())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    blobs = LocalBlobs(tmp_path)
    assert blobs.size(hashlib.sha256(b"halfrest").hexdigest()) is None
    assert put_bytes(blobs, b"halfrest")


def test_a_full_disk_leaves_no_blob(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from registry import errors; from registry.blobs import blobs\n"
        "root = pathlib.Path(sys.argv[1]); store = blobs.LocalBlobs(root)\n"
        "kept = blobs.put_bytes(store, b'kept')\n"
        "try:\n"
        "    store.put(bytes(65536) for _ in range(32))\n"
        "except errors.OutOfSpace as error:\n"
        "    assert str(root) in error.detail\n"
        "    assert blobs.get_bytes(store, kept) == b'kept'\n"
        "    assert [p for p in root.rglob('incoming-*')] == []\n"
        "    print('refused')"
    )
    assert small_disk.run(code, tmp_path) == "refused\n"


def test_a_reserve_of_the_disk_stays_free(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from registry import disk, errors; from registry.blobs import blobs\n"
        "root = pathlib.Path(sys.argv[1]); disk.CHECK_EVERY_BYTES = 1\n"
        "store = blobs.LocalBlobs(root, reserve_bytes=1 << 19)\n"
        "kept = blobs.put_bytes(store, b'kept')\n"
        "try:\n"
        "    store.put(bytes(65536) for _ in range(32))\n"
        "except errors.OutOfSpace as error:\n"
        "    assert 'are kept for the database' in error.detail\n"
        "    assert [p for p in root.rglob('incoming-*')] == []\n"
        "    assert blobs.get_bytes(store, kept) == b'kept'\n"
        "    print('refused')\n"
        "store.put(bytes(65536) for _ in range(6))"
    )
    assert small_disk.run(code, tmp_path) == "refused\n"
