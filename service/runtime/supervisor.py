"""`nexusmix up`: runs the database, and keeps the web, worker and agent processes running.

Every process it starts dies with it, however it dies. A signal stops all of them in order. An
engine whose agent died stays, and the next agent adopts it.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException

import psutil
import structlog

from engine.launch import keeping
from registry import logs, tracing
from registry.database.postgres import EmbeddedPostgres
from registry.errors import Conflict, NexusmixError, Unavailable
from registry.settings import settings
from service import home
from service.runtime import shutdown
from service.runtime.processes import Child

log = structlog.get_logger(__name__)

ROUND_SECONDS = 0.2
WEB_SECONDS = 60.0
KILL_SECONDS = 5.0


def up(*, on_ready: Callable[[str], None] | None = None) -> None:
    """Run the service until SIGINT or SIGTERM; answers that have begun are then finished.

    A second signal ends everything at once.

    Calls `on_ready` with the address when the pages answer. Call this from the main thread of a
    process that does nothing else. Raises Conflict when the data folder or the port is taken,
    OutOfSpace, InvalidInput as `tracing.collector`, and Unavailable when a part does not start.
    """
    # What any process of the service makes is for its owner only.
    os.umask(0o077)
    tracing.collector()  # refuses wrong variables before anything starts
    stopping, hurry = threading.Event(), threading.Event()

    def on_signal(*_: object) -> None:
        (hurry if stopping.is_set() else stopping).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    host, port = settings().host, free_port(settings().host, settings().port)
    address = home.address_of(host, port)
    with ExitStack() as stack:
        stack.enter_context(home.held(settings().home, address=address))
        keeping.become_keeper()
        stack.callback(_kill_descendants)
        postgres = stack.enter_context(_embedded()) if settings().database_url is None else None
        if postgres is not None:
            os.environ["NEXUSMIX_DATABASE_URL"] = postgres.url
            settings.cache_clear()
        children = _children(host, port)
        web, worker, agent = children
        stack.callback(shutdown.stop, web=web, worker=worker, agent=agent, hurry=hurry)
        # The web process loads for seconds; prepare the database meanwhile.
        web.keep_running()
        _prepare_database()
        _start(children, address, stopping)
        if on_ready is not None and not stopping.is_set():
            on_ready(address)
        while not stopping.wait(ROUND_SECONDS):
            _keep_running(children, postgres)
        log.info(
            "stopping; what is being answered is finished, and a second Ctrl-C ends it",
            seconds=settings().drain_seconds,
        )


def free_port(host: str, port: int) -> int:
    """Return `port`, or a free port for 0. Raises Conflict when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As uvicorn does it: connections that have just ended do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Conflict(
                f"cannot listen at {home.address_of(host, port)} ({error.strerror}); "
                "NEXUSMIX_HOST and NEXUSMIX_PORT name another place"
            ) from error
        return int(probe.getsockname()[1])


def answers(address: str) -> bool:
    """Return whether a web process serves pages at `address`."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _embedded() -> EmbeddedPostgres:
    return EmbeddedPostgres(settings().postgres_path)


def _prepare_database() -> None:
    """Migrate the database, and make the key of this installation."""
    # Imported here: meanwhile the web process loads on another core.
    import migrations
    from registry.database import db
    from service import keys

    url = settings().database_url
    assert url is not None
    migrations.upgrade(url)
    with db.transaction() as session:
        keys.installation_key(session, path=settings().key_path)
    # Close the connections: the children have their own, and this process only watches.
    db.close()


def _children(host: str, port: int) -> list[Child]:
    env = dict(os.environ) | {
        "NEXUSMIX_HOME": str(settings().home.absolute()),
        "NEXUSMIX_HOST": host,
        "NEXUSMIX_PORT": str(port),
    }
    web = ["uvicorn", "--factory", "service.app:create_alone", f"--host={host}", f"--port={port}"]
    web += ["--http=service.web.connections:BoundedProtocol", "--ws=none"]
    web.append(f"--timeout-graceful-shutdown={shutdown.web_limit()}")
    modules = {"web": web, "worker": ["assembler.jobs.worker"], "agent": ["engine.serving.agent"]}
    folder = settings().home / "logs"
    folder.mkdir(exist_ok=True)
    return [
        Child(
            name,
            [sys.executable, "-m", *module],
            env=env,
            log_path=folder / f"{name}.log",
            # Engines outlive the agent, and the next agent adopts them.
            leaves_children=name == "agent",
        )
        for name, module in modules.items()
    ]


def _start(children: list[Child], address: str, stopping: threading.Event) -> None:
    """Wait until the web process answers, then start the others. Raises Unavailable."""
    web, *others = children
    deadline = time.monotonic() + WEB_SECONDS
    while not answers(address):
        if time.monotonic() > deadline:
            raise Unavailable(f"the web process does not answer; see {web.log_path}")
        if stopping.wait(ROUND_SECONDS):
            return
        web.keep_running()
    log.info("ready", address=address)
    for other in others:
        other.keep_running()


def _keep_running(children: list[Child], postgres: EmbeddedPostgres | None) -> None:
    if postgres is not None and not postgres.is_running():
        log.warning("the database died, starting it again")
        postgres.start()
    for child in children:
        child.keep_running()
    own = [child.pid for child in children] + [None if postgres is None else postgres.pid]
    keeping.bury([pid for pid in own if pid is not None])


def _kill_descendants() -> None:
    """Kill processes that a child left behind, which would hold memory and ports for ever."""
    survivors = psutil.Process().children(recursive=True)
    for survivor in survivors:
        log.warning("killing what was left behind", pid=survivor.pid)
        survivor.kill()
    psutil.wait_procs(survivors, timeout=KILL_SECONDS)


def main() -> int:
    """Run the service until a signal comes. Returns the exit status."""
    logs.configure("supervisor", level=settings().log_level)
    try:
        up()
    except NexusmixError as error:
        log.error(error.detail)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
