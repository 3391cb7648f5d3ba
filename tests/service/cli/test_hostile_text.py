"""Text of users is printed as it is by every command, also where it looks like markup."""

from pathlib import Path

import pytest

from assembler.mixes import mix_state, mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixState
from engine.serving.tables import Deployment, DeploymentState
from registry.blobs.blobs import BlobStore
from registry.catalog import experts, families
from registry.database import db
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service.command_line import run_here

HOSTILE = "[/nope] and [words] :smile:"


@pytest.fixture
def hostile(installation: None, store: BlobStore) -> None:
    """Put the text wherever a user or a model can put text."""
    with db.transaction() as session:
        rows.add_all(session, store)
        families.find(session, "tiny").description = HOSTILE
        expert = experts.find(session, "expert-1")
        expert.description, expert.license = HOSTILE, HOSTILE
        spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
        version = publish(session, store, mixes.request(session, store, spec))
        failed = NewMix(name="other", family="tiny", experts=["expert-1", "expert-2"])
        mix_state.finish(
            session,
            mixes.request(session, store, failed).id,
            state=MixState.FAILED,
            error=HOSTILE,
        )
        session.add(
            Deployment(
                artifact_id=version.artifact_id,
                manifest_digest="a" * 64,
                model="both",
                state=DeploymentState.FAILED,
                error=HOSTILE,
            )
        )


@pytest.mark.parametrize(
    "command",
    [
        ["experts"],
        ["status"],
        ["plan", "mix", "new", "expert-1", HOSTILE, "--family=tiny"],
        ["mix", "new", "expert-1", HOSTILE, "--family=tiny"],
        ["plan", "mix", "new", "expert-1", "expert-2", f"--family={HOSTILE}"],
        ["export", "other@1", "nowhere"],
        ["report", HOSTILE],
        ["deploy", HOSTILE],
        ["undeploy", HOSTILE],
        ["verify", HOSTILE],
        ["gate", HOSTILE, HOSTILE],
        ["reproduce", HOSTILE],
        ["compress", HOSTILE, "--min-fdt-75=1"],
        ["compress", HOSTILE, "--min-fdt-75=1", "--expert"],
        ["override", HOSTILE, "--waive=a:b", "--reason=x"],
        ["policy", "show", HOSTILE],
        ["policy", "set", "tiny", f"/missing/{HOSTILE}"],
        ["schema", HOSTILE],
        ["learn", HOSTILE],
        ["train-expert", f"/missing/{HOSTILE}.jsonl", "nowhere"],
    ],
    ids=" ".join,
)
def test_a_text_is_printed_as_it_is(
    hostile: None, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    status = run_here(*command)
    printed = capsys.readouterr()

    assert status in (0, 1)
    assert HOSTILE in printed.out + printed.err, printed


def test_lists_end_well(hostile: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for command in (["experts"], ["mixes"], ["status"], ["presets"]):
        assert run_here(*command) == 0
    assert capsys.readouterr().out.count(HOSTILE) == 3
