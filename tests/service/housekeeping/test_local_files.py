"""Files that nobody needs are found by their age, their size and their use."""

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.launch.launcher import LocalLauncher
from registry.blobs.blobs import LocalBlobs, put_bytes
from service.housekeeping import local_files
from service.housekeeping.local_files import Entry

DAY = 24 * 3600
YESTERDAY = datetime.now(UTC) - timedelta(days=1)


def write(path: Path, *, num_bytes: int = 10, days: float = 0) -> Path:
    """Write a file that was last changed so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    age(path, days=days)
    return path


def age(path: Path, *, days: float) -> None:
    then = datetime.now().timestamp() - days * DAY
    os.utime(path, (then, then))


def paths(entries: list[Entry]) -> list[Path]:
    return [entry.path for entry in entries]


def test_uploads_that_stand_still_are_found(tmp_path: Path) -> None:
    old = write(tmp_path / "incoming-a", days=2)
    write(tmp_path / "incoming-b")
    write(tmp_path / "ab" / "cd", days=2)
    [found] = local_files.half_uploads(tmp_path, before=YESTERDAY)
    assert (found.path, found.num_bytes) == (old, 10)
    found.remove()
    assert not old.exists()
    found.remove()


def test_folders_that_a_killed_process_was_filling_are_found(tmp_path: Path) -> None:
    for days in (0, 2):
        folder = tmp_path / "noise" / "ab" / f".cd-{days}"
        write(folder / "file", days=days)
        age(folder, days=days)
    write(tmp_path / "noise" / "ab" / "cd" / "file", days=2)
    found = paths(local_files.unfinished_folders(tmp_path, before=YESTERDAY))
    assert found == [tmp_path / "noise" / "ab" / ".cd-2"]


def test_caches_keep_what_was_used_last(tmp_path: Path) -> None:
    folders = [tmp_path / "serving" / "one", tmp_path / "noise" / "ab" / "two"]
    folders += [tmp_path / "serving" / "three", tmp_path / "evaluations" / "ab" / "four"]
    for days, folder in enumerate(folders):
        write(folder / "file", num_bytes=100, days=9 - days)
        age(folder, days=9 - days)
    assert local_files.oldest_cached(tmp_path, max_bytes=400) == []
    assert paths(local_files.oldest_cached(tmp_path, max_bytes=250)) == folders[:2]
    served = local_files.oldest_cached(tmp_path, max_bytes=250, keep={folders[0]})
    assert paths(served) == folders[1:3]
    age(folders[1], days=0)
    assert paths(local_files.oldest_cached(tmp_path, max_bytes=0)) == [
        folders[0],
        *folders[2:],
    ], "what is in use stays"


def test_copies_of_blobs_keep_what_was_used_last(blobs: LocalBlobs) -> None:
    old, used = (put_bytes(blobs, data) for data in (b"old", b"used"))
    for digest in (old, used):
        age(blobs.local_path(digest), days=1)
    age(blobs.local_path(old), days=2)
    assert paths(local_files.oldest_fetched(blobs, max_bytes=4)) == [blobs.local_path(old)]
    assert local_files.oldest_fetched(blobs, max_bytes=7) == []


def test_checkpoints_of_jobs_that_go_on_stay(tmp_path: Path) -> None:
    for job in ("ended", "running"):
        write(tmp_path / "jobs" / job / "step-1" / "file", days=2)
        age(tmp_path / "jobs" / job, days=2)
    write(tmp_path / "jobs" / "new" / "file")
    found = local_files.job_folders(tmp_path, wanted={"running"}, before=YESTERDAY)
    assert paths(found) == [tmp_path / "jobs" / "ended"]
    found[0].remove()
    assert not found[0].path.exists()


def test_logs_in_use_stay(tmp_path: Path) -> None:
    old = write(tmp_path / "deployments" / "1.log", days=2)
    live = write(tmp_path / "deployments" / "2.log", days=2)
    write(tmp_path / "jobs" / "one" / "gate.log", days=2)
    age(tmp_path / "jobs" / "one", days=2)
    write(tmp_path / "web.log", days=2)
    write(tmp_path / "gate" / "3.log")
    found = local_files.old_logs(tmp_path, wanted={live}, before=YESTERDAY)
    assert paths(found) == [old, tmp_path / "jobs" / "one"]


def test_long_logs_are_found(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "web.log", num_bytes=10)
    long = [
        write(tmp_path / "logs" / "deployments" / "1.log", num_bytes=20),
        write(tmp_path / "logs" / "worker.log", num_bytes=20),
        write(tmp_path / "postgres.log", num_bytes=20),
    ]
    assert local_files.long_logs(tmp_path, max_bytes=10) == long


def test_a_process_goes_on_writing_to_a_rotated_log(tmp_path: Path) -> None:
    code = (
        "import sys\nfor line in ('one', 'two'):\n    print(line, flush=True); sys.stdin.readline()"
    )
    log, fifo = tmp_path / "web.log", tmp_path / "fifo"
    os.mkfifo(fifo)
    command = ["sh", "-c", f'exec "$0" -c "$1" < {fifo}', sys.executable, code]
    process = LocalLauncher().run(command, env=dict(os.environ), log_path=log)
    with fifo.open("w") as lines:
        while log.read_text() != "one\n":
            assert process.poll() is None
        local_files.rotate(log)
        lines.write("\n")
        lines.flush()
        while log.read_text() != "two\n":
            assert process.poll() is None
    assert process.wait() == 0
    assert (tmp_path / "web.log.1").read_text() == "one\n"


def test_the_last_old_logs_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    for number in range(local_files.NUM_OLD_LOGS + 2):
        log.write_text(str(number))
        local_files.rotate(log)
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"web.log": "", "web.log.1": "4", "web.log.2": "3", "web.log.3": "2"}
