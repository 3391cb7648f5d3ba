"""Requesting, planning, listing and exporting on the command line.

Covers: options.
"""

import subprocess
from pathlib import Path

import pytest

from assembler.mixes import mix_state, mixes, previews
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixState
from engine.gates.report import Failure
from engine.serving.tables import DeploymentState
from registry.blobs.blobs import BlobStore
from registry.database import db
from tests import factories
from tests.assembler import rows
from tests.assembler.published import assemble, keep_report, publish
from tests.assembler.workers import wait_for
from tests.service.command_line import COMMAND, run


def test_a_wrong_request_is_explained_field_by_field(installation: None, store: BlobStore) -> None:
    with db.transaction() as session:
        factories.make_family(session, store)
    done = run("mix", "mine", "nobody", "--family", "nowhere")

    assert done.returncode == 1
    assert "/family: no family 'nowhere'" in done.stderr


def test_a_plan_of_a_wrong_mix_prints_every_problem(installation: None, store: BlobStore) -> None:
    with db.transaction() as session:
        factories.make_family(session, store)
    done = run("plan", "mix", "mine", "nobody", "--family", "tiny", "--set", "combine=no")

    assert done.returncode == 1
    for pointer in ("/family", "/experts", "/experts/0"):
        assert f"{pointer}: " in done.stdout
    assert "/combine: Input should be 'convex' or 'sum'" in done.stdout


def test_a_change_is_planned_with_the_same_arguments(installation: None, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store, num_experts=3)
        spec = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
        publish(session, store, mixes.request(session, store, spec))
    words = ["extend", "mine", "expert-3", "--set", "finetune.new_share=0.7", "--no-deploy"]
    planned = run("plan", *words)
    refused = run(*words, "--set", "finetune.new_share=7")

    assert planned.returncode == 0, planned.stderr
    assert "assemble" in planned.stdout
    assert refused.returncode == 1
    assert "/finetune/new_share: Input should be less than or equal to 1" in refused.stderr
    with db.transaction() as session:
        assert mixes.get(session, "mine").number == 1


def test_a_mix_is_retried_and_followed(installation: None, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
        version = mixes.request(session, store, spec)
        mix_state.finish(session, version.id, state=MixState.FAILED, error="the disk is full")
    following = subprocess.Popen([*COMMAND, "retry", "mine@1"], stderr=subprocess.PIPE, text=True)

    def is_queued() -> bool:
        with db.transaction() as session:
            return mixes.get(session, "mine@1").state is MixState.QUEUED

    wait_for(is_queued, "the retry")
    with db.transaction() as session:
        mix_state.finish(session, version.id, state=MixState.FAILED, error="full again")
    _, complaint = following.communicate(timeout=60)
    assert following.returncode == 1
    assert "mine@1 failed: full again" in complaint


def test_a_preview_is_marked_in_lists(installation: None, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
        version = mixes.request(session, store, spec, deploy=True, preview=True)
        assemble(session, store, version)
        preview = previews.request(session, version)
        assert preview is not None
        preview.state = DeploymentState.READY
    listed, status = run("mixes"), run("status")

    assert "queued, preview answers" in listed.stdout, listed.stderr
    assert "preview of mine@1" in status.stdout, status.stderr


def test_presets_are_listed_with_their_changes(installation: None) -> None:
    done = run("presets")

    assert done.returncode == 0, done.stderr
    for words in (
        "bam-shared-kv",
        "No mixture",
        "attention=experts-shared-kv",
        "finetune.tokens=0",
    ):
        assert words in done.stdout


@pytest.fixture
def refused(store: BlobStore) -> None:
    """Make a mix `both`: version 1 is published, version 2 was refused by its gate."""
    with db.transaction() as session:
        rows.add_all(session, store)
        spec = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
        publish(session, store, mixes.request(session, store, spec))
        spec = NewMix(
            name="both", family="tiny", experts=["expert-1", "expert-2"], finetune={"seed": 1}
        )
        version = mixes.request(session, store, spec)
        assemble(session, store, version)
        failure = Failure(
            domain="expert-1", metric="served.fdt_75", value=1.0, limit="at least", threshold=24.0
        )
        keep_report(store, version, failures=[failure])
        mix_state.finish(session, version.id, state=MixState.FAILED, error="expert-1: too far")


def test_a_name_is_exported_in_its_published_version(
    installation: None, refused: None, tmp_path: Path
) -> None:
    done = run("export", "both", str(tmp_path / "mix"))

    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    # Only a published version has a signature.
    assert (tmp_path / "mix" / "attestation.json").is_file()


def test_a_refused_version_is_exported_by_its_number_with_a_warning(
    installation: None, refused: None, tmp_path: Path
) -> None:
    done = run("export", "both@2", str(tmp_path / "mix"))

    assert done.returncode == 0, done.stderr
    assert "warning: both@2 is failed, not published: expert-1: too far" in done.stderr
    assert not (tmp_path / "mix" / "attestation.json").exists()


def test_every_command_means_the_same_version_by_a_name(installation: None, refused: None) -> None:
    verified = run("verify", "both")
    deployed = run("deploy", "both@2")
    planned = run("plan", "extend", "both", "nobody")
    overridden = run("override", "both", "--waive=expert-1:served.fdt_75", "--reason=test")

    assert verified.returncode == 0, verified.stderr
    assert "both@2 is not published" in deployed.stderr
    assert "/base" not in planned.stdout
    assert "both@1 is succeeded" in overridden.stderr
