"""The embedded server starts, recovers after a kill, and ends with its parent."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, text

from registry.database.postgres import EmbeddedPostgres
from registry.errors import Conflict, Unavailable

ROOT = Path(__file__).parents[3]
# PostgreSQL logs this when it recovers.
UNCLEAN = "was not properly shut down"


@pytest.fixture(scope="module")
def server(servers: Path) -> Iterator[EmbeddedPostgres]:
    """Return a running server that tests may kill."""
    with EmbeddedPostgres(servers / "killable") as server:
        yield server


@pytest.fixture
def data(servers: Path, request: pytest.FixtureRequest) -> Path:
    """Return a data folder for a server of the test's own."""
    return servers / str(request.node.name) / "postgres"


def run(server: EmbeddedPostgres, *statements: str) -> list[object]:
    """Run statements, commit each, and return the first column of the last result."""
    engine = create_engine(server.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            result = connection.execute(text(statement))
        return [row[0] for row in result] if result.returns_rows else []


def process_of(server: EmbeddedPostgres) -> psutil.Process:
    pid_file = server.data / "postmaster.pid"
    return psutil.Process(int(pid_file.read_text().split()[0]))


def kill(server: EmbeddedPostgres) -> None:
    process = process_of(server)
    process.kill()
    process.wait()


def test_the_vector_extension_is_available(server: EmbeddedPostgres) -> None:
    statements = ("CREATE EXTENSION IF NOT EXISTS vector", "SELECT '[1,2]'::vector <-> '[1,5]'")
    assert run(server, *statements) == [3.0]


def test_the_server_listens_on_no_port(server: EmbeddedPostgres) -> None:
    assert [c for c in process_of(server).net_connections() if c.family.name != "AF_UNIX"] == []


def test_the_data_folder_is_closed_to_other_users(server: EmbeddedPostgres) -> None:
    assert server.data.stat().st_mode & 0o077 == 0


def test_committed_rows_survive_kill_9(server: EmbeddedPostgres) -> None:
    url = server.url
    run(server, "DROP TABLE IF EXISTS kept", "CREATE TABLE kept AS SELECT 7 AS number")
    kill(server)
    assert not server.is_running()
    assert server.start() == url
    assert run(server, "SELECT number FROM kept") == [7]


def test_a_stale_pid_file_with_a_used_process_id_is_ignored(server: EmbeddedPostgres) -> None:
    pid_file = server.data / "postmaster.pid"
    stale = pid_file.read_text().splitlines()
    kill(server)
    # After a restart of a container another program can have the process id.
    pid_file.write_text("\n".join([str(os.getpid()), *stale[1:]]) + "\n")
    server.start()
    assert run(server, "SELECT 1") == [1]


def test_a_stopped_server_starts_again(server: EmbeddedPostgres) -> None:
    server.stop()
    assert not server.is_running()
    server.stop()
    written = server.log_path.read_text()
    server.start()
    assert server.is_running()
    assert UNCLEAN not in server.log_path.read_text().removeprefix(written)


def test_a_second_server_on_one_folder_is_refused(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.database.postgres.PREDECESSOR_SECONDS", 0.05)
    with pytest.raises(Conflict, match="already runs on"):
        EmbeddedPostgres(server.data).start()
    assert server.is_running()


def test_an_error_at_the_start_shows_the_log(data: Path) -> None:
    broken = EmbeddedPostgres(data)
    with broken:
        pass
    (broken.data / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(Unavailable, match="no_such_setting"):
        broken.start()
    assert not broken.is_running()


def test_an_interrupted_first_start_is_repaired(data: Path) -> None:
    half = data.with_name("postgres.incoming")
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(data) as server:
        assert run(server, "SELECT 1") == [1]


def test_a_long_path_gets_a_short_socket(data: Path) -> None:
    server = EmbeddedPostgres(data / ("long" * 30) / "postgres")
    with server:
        folder = server._socket_folder
        assert run(server, "SELECT 1") == [1]
    assert folder is not None
    assert not folder.exists(), "the folder of the socket is removed"


def test_the_server_ends_with_its_parent(data: Path) -> None:
    code = (
        "import sys, pathlib; from registry.database.postgres import EmbeddedPostgres\n"
        "print(EmbeddedPostgres(pathlib.Path(sys.argv[1])).start(), flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(data)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        # Log lines may come before the address.
        url = next(line for line in owner.stdout if line.startswith("postgresql+psycopg:"))
        server = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
        owner.kill()
    server.wait(timeout=30)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url.strip().replace("+psycopg", ""))
    with EmbeddedPostgres(data) as again:
        assert UNCLEAN not in again.log_path.read_text()
