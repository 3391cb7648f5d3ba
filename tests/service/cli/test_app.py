"""What all commands share."""

import subprocess
import sys
from importlib import metadata

import pytest

from tests.service.command_line import run


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys, service.cli.app\n"
        "slow = {'torch', 'vllm', 'sqlalchemy', 'fastapi', 'httpx'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_help_names_every_command() -> None:
    done = run("--help")

    for command in (
        "up",
        "demo",
        "train-expert",
        "register",
        "mix",
        "deploy",
        "undeploy",
        "plan",
        "presets",
        "compress",
        "status",
    ):
        assert f" {command} " in done.stdout


def test_the_version_is_printed() -> None:
    done = run("--version")

    assert (done.returncode, done.stdout) == (0, f"nexusmix {metadata.version('nexusmix')}\n")


def test_a_command_without_a_service_says_how_to_start_it() -> None:
    done = run("experts")

    assert done.returncode == 1
    assert "`nexusmix up`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_PORT", "many")
    done = run("status")

    assert done.returncode == 1
    assert "NEXUSMIX_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_DATABASE_URL", "postgresql://me:hush@127.0.0.1:1/nexusmix")
    monkeypatch.setenv("NEXUSMIX_DATABASE_CONNECT_SECONDS", "2")
    done = run("migrate")

    assert done.returncode == 1
    assert done.stderr.startswith("nexusmix: the database cannot be used: ")
    assert "hush" not in done.stderr
