"""The service survives the death of any part, and leaves no process behind."""

import socket
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest

from assembler.recipes.recipe import Finetune
from assembler.tables import MixState, MixVersion
from registry.database import db
from registry.errors import Conflict
from registry.settings import settings
from service.client.keys import KeyClient
from service.runtime import supervisor
from tests.assembler.workers import WHOLE, num_tokens_of, phases, request_mix, wait_until_over
from tests.service.services import COMMAND, Service, environment, serving, wait_for

# Long enough to kill three parts while it runs.
LASTING = Finetune(tokens=1000 * 4 * 32, batch_size=4, sequence_length=32)


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Conflict, match=f"127.0.0.1:{port}"):
            supervisor.free_port("127.0.0.1", port)


def test_any_free_port_is_found() -> None:
    assert supervisor.free_port("127.0.0.1", 0) > 0


def test_an_address_without_a_service_does_not_answer() -> None:
    assert not supervisor.answers(f"http://127.0.0.1:{supervisor.free_port('127.0.0.1', 0)}")


@pytest.mark.slow
def test_killed_parts_are_started_again(home: Path) -> None:
    with serving(home) as service:
        assert (home / "api-key").stat().st_mode & 0o777 == 0o600
        for part in ("web", "worker", "agent", "postgres"):
            service.kill(part)
            service.find(part)
            wait_for(lambda: _is_healthy(service), f"health after the end of {part}")
        everything = service.descendants()
        assert service.interrupt() == 0
        assert not any(process.is_running() for process in everything)


@pytest.mark.slow
def test_no_key_is_in_an_argument_or_a_log(home: Path) -> None:
    with serving(home) as service:
        key = (home / "api-key").read_text().strip()
        with KeyClient(service.address, key=key) as client:
            path = client.create_sign_in_link().path
        httpx.get(service.address + path)
        httpx.get(f"{service.address}/api/v1/experts", headers={"Authorization": f"Bearer {key}x"})
        service.find("agent")
        arguments = [" ".join(process.cmdline()) for process in service.descendants()]
        logs = [log.read_text(errors="replace") for log in home.rglob("*.log")]
    assert any("/sign-in" in log for log in logs)
    for secret in (key, path.partition("=")[2]):
        assert not any(secret in text for text in (*arguments, *logs))
    private = [*(home / "logs").iterdir(), home / "postgres.log"]
    assert all(log.stat().st_mode & 0o077 == 0 for log in private)


@pytest.mark.slow
def test_a_second_service_on_the_same_folder_is_refused(home: Path) -> None:
    with serving(home) as service:
        second = subprocess.run(COMMAND, env=environment(home), capture_output=True, text=True)
        assert second.returncode == 1
        assert f"process {service.process.pid} at {service.address}" in second.stderr


@pytest.mark.slow
def test_a_killed_supervisor_takes_everything_with_it(home: Path) -> None:
    with serving(home) as service:
        service.find("agent")
        everything = service.descendants()
        service.process.kill()
        psutil.wait_procs(everything, timeout=30)
        assert not any(process.is_running() for process in everything)
    with serving(home) as service:
        assert _is_healthy(service)


@pytest.mark.slow
def test_a_mix_is_made_and_served_whatever_dies(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(home) as service:
        monkeypatch.setenv("NEXUSMIX_DATABASE_URL", service.database_url)
        settings.cache_clear()
        version = request_mix(finetune=LASTING)
        for part in ("postgres", "web", "postgres"):
            _wait_for_training(version)
            service.kill(part)
        done = wait_until_over(version.id)
        assert (done.state, done.error) == (MixState.SUCCEEDED, None)
        assert phases(version.job_id) == WHOLE
        _wait_until_it_answers(service)
        service.kill("server")
        _wait_until_it_answers(service)
        db.close()


def _wait_for_training(version: MixVersion) -> None:
    seen = num_tokens_of(version)
    wait_for(lambda: num_tokens_of(version) > seen, "training steps")


def _wait_until_it_answers(service: Service) -> None:
    """Wait until the mix completes a text through the gateway."""
    key = (service.home / "api-key").read_text().strip()

    def completes() -> bool:
        try:
            response = httpx.post(
                f"{service.address}/v1/completions",
                json={"model": "mine", "prompt": "abc", "max_tokens": 2},
                headers={"Authorization": f"Bearer {key}"},
                timeout=60,
            )
        except httpx.TransportError:
            return False
        return response.is_success

    wait_for(completes, "a completion")


def _is_healthy(service: Service) -> bool:
    try:
        return httpx.get(f"{service.address}/health", timeout=5).is_success
    except httpx.TransportError:
        return False
