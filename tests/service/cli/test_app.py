"""What all commands have in common, and those that ask the running service."""

import subprocess
import sys

import pytest

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from engine.serving import deployments
from registry import artifacts, db
from registry.blobs import BlobStore
from registry.settings import settings
from service.runtime import home
from tests import factories
from tests.assembler import rows
from tests.assembler.published import publish
from tests.service.command_line import run


def test_help_imports_nothing_that_takes_time() -> None:
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
        "test",
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


def test_without_a_service_it_says_how_to_start_one() -> None:
    done = run("experts")

    assert done.returncode == 1
    assert "./nexusmix up" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_tells_that_nothing_runs() -> None:
    done = run("status")

    assert done.returncode == 1
    assert "nothing runs" in done.stdout


def test_experts_of_the_running_service_are_listed(
    address: str, key: str, store: BlobStore
) -> None:
    with db.transaction() as session:
        family = factories.make_family(session, store)
        factories.make_expert(session, family, name="law")
    with home.held(settings().home, address=address):
        settings().key_path.write_text(key)
        done = run("experts")

    assert done.returncode == 0, done.stderr
    assert "law" in done.stdout
    assert "CC0-1.0" in done.stdout


def test_wrong_mix_is_explained_field_by_field(address: str, key: str, store: BlobStore) -> None:
    with db.transaction() as session:
        factories.make_family(session, store)
    with home.held(settings().home, address=address):
        settings().key_path.write_text(key)
        done = run("mix", "mine", "nobody", "--family", "nowhere")

    assert done.returncode == 1
    assert "/family: no family 'nowhere'" in done.stderr


def test_plan_of_a_wrong_mix_ends_with_all_that_is_wrong(
    address: str, key: str, store: BlobStore
) -> None:
    with db.transaction() as session:
        factories.make_family(session, store)
    with home.held(settings().home, address=address):
        settings().key_path.write_text(key)
        done = run("plan", "mix", "mine", "nobody", "--family", "tiny", "--set", "combine=no")

    assert done.returncode == 1
    for pointer in ("/family", "/experts", "/experts/0"):
        assert f"{pointer}: " in done.stdout
    assert "/combine: Input should be 'convex' or 'sum'" in done.stdout


def test_a_change_is_planned_in_its_own_words(address: str, key: str, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store, num_experts=3)
        wish = NewMix(name="mine", family="tiny", experts=["expert-1", "expert-2"])
        publish(session, store, mixes.request(session, store, wish))
    words = ["extend", "mine", "expert-3", "--set", "finetune.new_share=0.7", "--no-deploy"]
    with home.held(settings().home, address=address):
        settings().key_path.write_text(key)
        planned = run("plan", *words)
        refused = run(*words, "--set", "finetune.new_share=7")

    assert planned.returncode == 0, planned.stderr
    assert "assemble" in planned.stdout
    assert refused.returncode == 1
    assert "/finetune/new_share: Input should be less than or equal to 1" in refused.stderr
    with db.transaction() as session:
        assert mixes.get(session, "mine").number == 1


def test_presets_say_what_they_change(address: str, key: str) -> None:
    with home.held(settings().home, address=address):
        settings().key_path.write_text(key)
        done = run("presets")

    assert done.returncode == 0, done.stderr
    for words in (
        "bam-shared-kv",
        "No mixture",
        "attention=experts-shared-kv",
        "finetune.tokens=0",
    ):
        assert words in done.stdout


def test_expert_is_not_trained_over_something_else(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("expert")
    done = run("train-expert", "documents.jsonl", str(folder))

    assert done.returncode == 1
    assert "exists already" in done.stderr


def test_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_PORT", "many")
    done = run("status")

    assert done.returncode == 1
    assert "NEXUSMIX_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_served_is_ended(address: str, key: str, store: BlobStore) -> None:
    with db.transaction() as session:
        rows.add_all(session, store)
        wish = NewMix(name="both", family="tiny", experts=["expert-1", "expert-2"])
        mix = publish(session, store, mixes.request(session, store, wish))
        assert mix.artifact_id is not None
        deployments.request(session, artifacts.get(session, mix.artifact_id), model="both")
    with home.held(settings().home, address=address):
        settings().key_path.write_text(key)
        ended, again = run("undeploy", "both"), run("undeploy", "both")

    assert (ended.returncode, again.returncode) == (0, 1), ended.stderr
    assert "both is served no more" in ended.stdout
    assert "no model 'both' is deployed" in again.stderr
