"""The programs of PostgreSQL are found by their version, and get no password to show."""

import os
from pathlib import Path

import pytest

from registry.errors import StepFailed, Unavailable
from service.housekeeping import (
    pg_programs,
)


def test_a_failing_program_is_quoted_and_an_old_one_is_not_used(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepFailed, match=r"pg_restore ended with status 1: .*none"):
        pg_programs.restore(database, tmp_path / "none", server_version=18)
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match="no pg_dump of PostgreSQL 99 or newer"):
        pg_programs.dump(database, tmp_path / "x", snapshot="", server_version=99)


def test_a_password_is_no_argument_of_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "pg_dump"
    fake.write_text(f'#!/bin/sh\necho "PostgreSQL 99"; echo "$@ $PGPASSWORD" >> {tmp_path}/seen\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    url = "postgresql+psycopg://me:secret@127.0.0.1/mine"
    pg_programs.dump(url, tmp_path / "x", snapshot="1-1", server_version=18)
    arguments, _, password = (tmp_path / "seen").read_text().splitlines()[-1].rpartition(" ")
    assert password == "secret"
    assert "secret" not in arguments
    assert "postgresql://me@127.0.0.1/mine" in arguments
