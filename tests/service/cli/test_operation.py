"""The state of the service, and serving models, on the command line."""

import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from engine.serving import deployments
from registry.blobs.blobs import BlobStore
from registry.catalog import artifacts
from registry.database import db
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service import services
from tests.service.command_line import COMMAND, run


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
