"""A sweep removes only what nothing needs, whatever uploads and jobs do meanwhile."""

import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy.orm import Session

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixState
from registry.blobs.blobs import LocalBlobs, StoredBlob, get_bytes, put_bytes
from registry.catalog import blob_permissions, experts
from registry.checkpoints import byte_checks, manifests
from registry.database import db
from registry.database.tables import Expert
from registry.ingest.checkpoint_folder import CheckpointFolder
from service.housekeeping import blob_sweep, needed_blobs
from service.housekeeping.blob_sweep import Sweep
from service.housekeeping.needed_blobs import NeededBlobs
from tests import seaweed, tiny
from tests.assembler import rows
from tests.registry.blobs.test_s3 import open_for
from tests.registry.catalog import uploading
from tests.service.housekeeping import stored_mix

GRACE = timedelta(hours=24)
HOURS = 3600
NUM_BLOBS = 4


def shift(blobs: LocalBlobs, *, hours: float) -> None:
    """Let so much time pass for all blobs."""
    for path in blobs.root.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - hours * HOURS,) * 2)


def sweep(blobs: LocalBlobs, needed: Callable[[], set[str]], *, dry_run: bool = False) -> Sweep:
    return blob_sweep.sweep(
        blobs,
        lambda: NeededBlobs({digest: [] for digest in needed()}),
        cutoff=datetime.now(UTC) - GRACE,
        dry_run=dry_run,
    )


def test_a_needless_blob_goes_in_two_steps(blobs: LocalBlobs) -> None:
    needed, needless = put_bytes(blobs, b"needed"), put_bytes(blobs, b"needless")
    assert not sweep(blobs, lambda: {needed}).aside, "it is young"
    shift(blobs, hours=25)
    assert [b.digest for b in sweep(blobs, lambda: {needed}, dry_run=True).aside] == [needless]
    assert [b.digest for b in sweep(blobs, lambda: {needed}).aside] == [needless]
    assert not sweep(blobs, lambda: {needed}).deleted, "it is aside for a moment only"
    shift(blobs, hours=25)
    assert [b.digest for b in sweep(blobs, lambda: {needed}).deleted] == [needless]
    assert blobs.size(needless) is None
    assert get_bytes(blobs, needed) == b"needed"


def test_a_blob_that_is_needed_again_comes_back(blobs: LocalBlobs) -> None:
    digest = put_bytes(blobs, b"needed again")
    shift(blobs, hours=25)
    sweep(blobs, set)
    shift(blobs, hours=25)
    assert sweep(blobs, lambda: {digest}) == Sweep()
    assert [blob.digest for blob in blobs.stored()] == [digest]


def test_nothing_is_touched_while_a_manifest_cannot_be_read(
    session: Session, blobs: LocalBlobs
) -> None:
    mix = stored_mix.add(session, blobs)
    assert mix.assembled_digest is not None
    stored_mix.damage(blobs.local_path(mix.assembled_digest))
    put_bytes(blobs, b"needless")
    shift(blobs, hours=25)
    swept = blob_sweep.sweep(
        blobs, lambda: needed_blobs.find(session, blobs), cutoff=datetime.now(UTC) - GRACE
    )
    assert swept == Sweep(unread=(mix.assembled_digest,))


def test_what_is_younger_than_a_running_job_is_young(session: Session, blobs: LocalBlobs) -> None:
    rows.add_all(session, blobs)
    spec = NewMix(name="slow", family="tiny", experts=["expert-1", "expert-2"])
    version = mixes.request(session, blobs, spec)
    week = timedelta(days=7)
    version.created_at = datetime.now(UTC) - week
    session.flush()
    for state, age in (
        (MixState.QUEUED, GRACE),
        (MixState.FINETUNING, week),
        (MixState.FAILED, GRACE),
    ):
        version.state = state
        session.flush()
        cutoff = blob_sweep.cutoff(session, grace=GRACE)
        assert age < datetime.now(UTC) - cutoff < age + timedelta(hours=1)


def test_a_bucket_is_swept(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with seaweed.SeaweedServer(tmp_path_factory.mktemp("seaweed")) as server:
        store = open_for(server, tmp_path)
        needed, needless = put_bytes(store, b"needed"), put_bytes(store, b"needless")

        def run() -> Sweep:
            everything = NeededBlobs({needed: []})
            soon = datetime.now(UTC) + timedelta(minutes=1)
            return blob_sweep.sweep(store, lambda: everything, cutoff=soon)

        assert [blob.digest for blob in run().aside] == [needless]
        assert [blob.digest for blob in run().deleted] == [needless]
        assert [blob.digest for blob in store.stored()] == [needed]
        assert store.size(needless) is None


class Interrupted(LocalBlobs):
    """A store that lets others act before each step of a sweep."""

    def __init__(self, root: Path, others: Callable[[], None]) -> None:
        super().__init__(root)
        self.others = others

    def stored(self) -> Iterator[StoredBlob]:
        self.others()
        yield from super().stored()

    def aside(self) -> Iterator[StoredBlob]:
        self.others()
        yield from super().aside()

    def set_aside(self, digest: str) -> None:
        self.others()
        super().set_aside(digest)

    def delete_aside(self, digest: str) -> None:
        self.others()
        super().delete_aside(digest)


class UploadsAndSweeps(RuleBasedStateMachine):
    """Uploads and jobs begin to need blobs and name them in rows; sweeps run at any time.

    The model knows the rows, and the age of each blob since it was last kept or written. A row is
    committed within the grace period.
    """

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory(prefix="nexusmix-tests-")
        self.blobs = LocalBlobs(Path(self.folder.name))
        self.data = [bytes([number]) for number in range(NUM_BLOBS)]
        self.digests = [put_bytes(self.blobs, data) for data in self.data]
        self.age = [0.0] * NUM_BLOBS
        self.rows: set[int] = set()

    @rule(number=st.integers(0, NUM_BLOBS - 1), writes=st.booleans())
    def announce(self, number: int, writes: bool) -> None:
        """Write a blob, or keep it if it is there; ask for it if it is not."""
        if writes or self.blobs.keep(self.digests[number]) is None:
            put_bytes(self.blobs, self.data[number])
        self.age[number] = 0

    @rule(number=st.integers(0, NUM_BLOBS - 1))
    def commit(self, number: int) -> None:
        """Commit a row that names a blob, in time after the blob was kept."""
        if number not in self.rows and self.age[number] < 24:
            self.rows.add(number)

    @rule(number=st.integers(0, NUM_BLOBS - 1))
    def drop(self, number: int) -> None:
        """Delete the row that names a blob."""
        if number in self.rows:
            self.rows.remove(number)

    @rule(hours=st.sampled_from([1, 12, 23, 25]))
    def wait(self, hours: float) -> None:
        shift(self.blobs, hours=hours)
        self.age = [age + hours for age in self.age]

    @precondition(lambda self: hasattr(self, "blobs"))
    @rule(
        others=st.lists(
            st.tuples(
                st.sampled_from(["announce", "commit", "drop", None]), st.integers(0, NUM_BLOBS - 1)
            ),
            max_size=8,
        )
    )
    def sweep(self, others: list[tuple[str | None, int]]) -> None:
        """Sweep, while others do something before each of its steps."""
        waiting = iter(others)

        def act() -> None:
            name, number = next(waiting, (None, 0))
            if name == "announce":
                self.announce(number, writes=False)
            elif name is not None:
                getattr(self, name)(number)

        def needed() -> set[str]:
            act()
            found = {self.digests[number] for number in self.rows}
            act()
            return found

        sweep(Interrupted(self.blobs.root, act), needed)

    @invariant()
    def nothing_needed_or_young_is_lost(self) -> None:
        if hasattr(self, "blobs"):
            there = {b.digest for b in (*self.blobs.stored(), *self.blobs.aside())}
            for number in range(NUM_BLOBS):
                if number in self.rows or self.age[number] < 24:
                    assert self.digests[number] in there, f"blob {number} is lost"

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestUploadsAndSweeps = UploadsAndSweeps.TestCase
TestUploadsAndSweeps.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_uploads_lose_nothing_to_sweeps_that_run_all_the_time(
    database: str, blobs: LocalBlobs, tmp_path: Path
) -> None:
    """An expert is registered when its tensors are stored, set aside, and deleted."""
    checkpoint = CheckpointFolder.read(tiny.write_checkpoint(tmp_path / "expert", expert=1))
    with db.transaction() as session:
        rows.add_family(session, blobs)
    ended, swept = threading.Event(), list[Sweep]()

    def find() -> NeededBlobs:
        with db.transaction() as session:
            return needed_blobs.find(session, blobs)

    def keep_sweeping() -> None:
        while not ended.is_set():
            cutoff = datetime.now(UTC) - timedelta(seconds=1.5)
            swept.append(blob_sweep.sweep(blobs, find, cutoff=cutoff))

    sweeper = threading.Thread(target=keep_sweeping)
    sweeper.start()
    try:
        assert register_and_drop(blobs, checkpoint) > 0, "it is sent"
        wait_for(lambda: any(done.aside for done in swept), sweeper)
        assert register_and_drop(blobs, checkpoint) == 0, "it is brought back"
        wait_for(lambda: any(done.deleted for done in swept), sweeper)
        register_and_drop(blobs, checkpoint)
    finally:
        ended.set()
        sweeper.join()
    assert not any(done.unread for done in swept)


def wait_for(condition: Callable[[], bool], sweeper: threading.Thread) -> None:
    while not condition():
        assert sweeper.is_alive(), "a sweep failed"
        sweeper.join(timeout=0.05)


def register_and_drop(blobs: LocalBlobs, checkpoint: CheckpointFolder) -> int:
    """Register an expert as clients do and check its bytes; return how many blobs were sent.

    Then drop it, so that nothing needs its blobs.
    """
    with db.transaction() as session:
        missing = uploading.begin_expert(session, blobs).missing
    for digest in missing:
        blobs.put(checkpoint.sources[digest].chunks(), digest=digest)
    with db.transaction() as session:
        blob_permissions.record_sent(session, missing, sender=uploading.SENDER)
        version = uploading.complete_expert(session, blobs)
        manifest = manifests.load(blobs, experts.checkpoint_digest(version))
        byte_checks.verify(blobs, manifest, known=set())
        session.delete(version)
        session.flush()
        session.query(Expert).delete()
    return len(missing)
