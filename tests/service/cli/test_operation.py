"""The state of the service, and serving models, on the command line."""

import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from engine.serving import deployments
from engine.serving.tables import Deployment, DeploymentState
from registry.blobs.blobs import BlobStore
from registry.catalog import artifacts
from registry.database import db
from registry.settings import settings
from service import home
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service import services
from tests.service.command_line import COMMAND, run
from tests.service.conftest import serving


def test_status_says_that_nothing_runs() -> None:
    done = run("status")

    assert done.returncode == 1
    assert "nothing runs" in done.stdout


@pytest.mark.slow
def test_up_prints_a_link_that_signs_in_once_and_no_key(home: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "up"], env=services.environment(home), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        printed = []
        for line in process.stderr:
            printed.append(line)
            if found := re.search(r"sign in with (http://\S+) \(once", line):
                break
        else:
            raise AssertionError("".join(printed))
        answers = [httpx.get(found[1]).status_code for _ in range(2)]
        process.send_signal(signal.SIGINT)
        printed += process.stderr.readlines()
    assert answers == [303, 401]
    assert (home / "api-key").read_text().strip() not in "".join(printed)


def test_a_served_model_is_stopped(installation: None, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
        mix = publish(session, store, mixes.request(session, store, spec))
        assert mix.artifact_id is not None
        deployments.request(session, artifacts.get(session, mix.artifact_id), model="both")
    ended, again = run("undeploy", "both"), run("undeploy", "both")

    assert (ended.returncode, again.returncode) == (0, 1), ended.stderr
    assert "both is not served any more" in ended.stdout
    assert "no model 'both' is deployed" in again.stderr


def published(store: BlobStore) -> int:
    """Publish a mix `both`, and return its artifact."""
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
        mix = publish(session, store, mixes.request(session, store, spec))
        assert mix.artifact_id is not None
        return mix.artifact_id


def test_a_model_whose_name_was_taken_is_not_said_to_answer(
    installation: None, store: BlobStore
) -> None:
    artifact = published(store)
    # A trigger takes the name as soon as the command has asked for it, as somebody else would.
    take = """
        CREATE FUNCTION take_name() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.num_starts = 0 THEN
                INSERT INTO deployments
                    (artifact_id, manifest_digest, model, state, num_starts, address)
                VALUES
                    (NEW.artifact_id, NEW.manifest_digest, NEW.model, 'READY', 1,
                     'http://127.0.0.1:1');
                UPDATE deployments SET state = 'STOPPED' WHERE id = NEW.id;
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER take_name AFTER INSERT ON deployments
        FOR EACH ROW EXECUTE FUNCTION take_name();
    """
    with db.transaction() as session:
        session.execute(text(take))
    try:
        done = run("deploy", "both")
    finally:
        with db.transaction() as session:
            session.execute(text("DROP TRIGGER take_name ON deployments"))
            session.execute(text("DROP FUNCTION take_name"))

    assert artifact
    assert done.returncode == 1
    assert "answers" not in done.stdout
    assert "both@1 is not served: deployment 2 has taken the model name 'both'" in done.stderr


def test_status_lists_every_model_but_stopped_ones(installation: None, store: BlobStore) -> None:
    artifact = published(store)
    with db.transaction() as session:
        for number in range(120):
            row = Deployment(
                artifact_id=artifact, manifest_digest="a" * 64, model=f"model-{number}"
            )
            row.state = DeploymentState.STOPPED if number == 60 else DeploymentState.REQUESTED
            session.add(row)
    done = run("status")

    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("model-")]
    assert len(listed) == 119
    assert "model-60" not in listed


def test_commands_find_a_service_that_listens_on_ipv6(
    app: FastAPI, key: str, store: BlobStore
) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)
    with serving(app, host="::1") as address, home.held(settings().home, address=address):
        settings().key_path.write_text(key)
        status, listed = run("status"), run("experts")

    assert status.returncode == 0, status.stderr
    assert "http://[::1]:" in status.stdout
    assert listed.returncode == 0, listed.stderr
    assert "expert-1" in listed.stdout
