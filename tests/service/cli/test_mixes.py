"""Requesting, planning and listing on the command line.

Covers: options.
"""

import subprocess

from assembler.mixes import mix_state, mixes
from assembler.mixes.new_mix import NewMix
from assembler.tables import MixState
from registry.blobs.blobs import BlobStore
from registry.database import db
from tests import factories
from tests.assembler import rows
from tests.assembler.published import publish
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
    following = subprocess.Popen([*COMMAND, "retry", "mine"], stderr=subprocess.PIPE, text=True)

    def is_queued() -> bool:
        with db.transaction() as session:
            return mixes.get(session, "mine").state is MixState.QUEUED

    wait_for(is_queued, "the retry")
    with db.transaction() as session:
        mix_state.finish(session, version.id, state=MixState.FAILED, error="full again")
    _, complaint = following.communicate(timeout=60)
    assert following.returncode == 1
    assert "mine@1 failed: full again" in complaint


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
