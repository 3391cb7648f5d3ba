"""Two minutes of chaos lose nothing; the parts of the chaos do what they say."""

import json
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.benchmarks.chaos import faults
from tests.benchmarks.chaos.__main__ import main
from tests.benchmarks.chaos.installation import processes_of
from tests.benchmarks.chaos.ledger import Ledger
from tests.benchmarks.chaos.proxy import Proxy


@pytest.mark.long
def test_nothing_is_lost_in_two_minutes(tmp_path: Path) -> None:
    output = tmp_path / "chaos.json"
    status = main(["--quick", "--output", str(output)])
    result = json.loads(output.read_text())
    assert result["findings"] == []
    assert status == 0


def test_every_fault_comes_before_any_comes_twice() -> None:
    every = faults.faults(small_disk=True)
    deck = faults.Deck(every, random.Random(0))
    names = [deck.draw().name for _ in range(2 * len(every))]
    assert set(names[: len(every)]) == {fault.name for fault in every}
    assert sorted(names) == sorted(2 * [fault.name for fault in every])


def test_a_process_whose_title_hides_its_environment_is_found(tmp_path: Path) -> None:
    program = "import setproctitle, sys; setproctitle.setproctitle(9999 * 'x'); sys.stdin.read()"
    home = tmp_path / "home"
    home.mkdir()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=log
        )
    with process:
        assert [found.pid for found in processes_of(home)] == [process.pid]
        process.kill()


def test_the_disk_is_filled_only_if_it_is_our_own() -> None:
    assert "fill disk" not in {fault.name for fault in faults.faults(small_disk=False)}


def test_a_proxy_passes_bytes_until_it_is_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        port = server.getsockname()[1]
        with Proxy(f"127.0.0.1:{port}") as proxy:
            address = proxy.address.removeprefix("http://").split(":")
            with socket.create_connection((address[0], int(address[1]))) as client:
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"
                assert proxy.cut() == 1
                assert client.recv(5) == b"", "the line is cut"


def test_errors_are_counted_by_status_code_and_fault() -> None:
    ledger = Ledger(fault="kill server")
    for _ in range(2):
        ledger.refuse(503, "unavailable", retry_after="2")
    ledger.refuse(None, "timed_out", retry_after=None)
    assert ledger.findings == []
    assert ledger.refused() == [
        {"status": 503, "code": "unavailable", "fault": "kill server", "times": 2},
        {"status": None, "code": "timed_out", "fault": "kill server", "times": 1},
    ]


@pytest.mark.parametrize("status", [500, 502, 503])
def test_an_error_that_no_fault_explains_is_a_finding(status: int) -> None:
    ledger = Ledger(fault="kill server")
    ledger.refuse(status, "unavailable", retry_after=None)
    assert "after kill server" in ledger.findings[0]


def _echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(100):
            connection.sendall(data)
