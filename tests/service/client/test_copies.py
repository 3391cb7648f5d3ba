"""An expert of another nexusmix is registered here; only what is not here yet is moved."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

import migrations
from registry.blobs import blob_stores
from registry.checkpoints import manifests
from registry.database import db
from registry.database.postgres import EmbeddedPostgres
from registry.errors import NotFound, Unauthenticated
from service.client.client import Client
from service.client.transfers import Transfer
from service.schemas.experts import VersionBody
from tests import tiny
from tests.assembler import rows
from tests.service.cli.test_given import fail_when_checking
from tests.service.command_line import run, run_here
from tests.service.cutting import Cut, cutting

pytestmark = pytest.mark.slow

OTHER_DATABASE = "peer"
ABOUT = ["--name=law", "--family=tiny", "--license=CC0-1.0"]


@pytest.fixture(scope="module")
def peer(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The address and a key of a second instance, with data of its own."""
    engine = create_engine(postgres.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {OTHER_DATABASE}"))
        connection.execute(text(f"CREATE DATABASE {OTHER_DATABASE}"))
    url = engine.url.set(database=OTHER_DATABASE).render_as_string(hide_password=False)
    engine.dispose()
    migrations.upgrade(url)
    home = {"NEXUSMIX_HOME": str(tmp_path_factory.mktemp("peer")), "NEXUSMIX_DATABASE_URL": url}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.client.peer_process"],
        env=os.environ | home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        # The log goes to the same place.
        yield next(json.loads(line) for line in process.stdout if line.startswith('{"address"'))
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


@pytest.fixture
def family(database: str) -> str:
    with db.transaction() as session:
        return rows.add_family(session, blob_stores.store()).name


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "law", expert=1) / "documents.jsonl"


def copy(client: Client, there: Client, documents: Path) -> tuple[VersionBody, list[Transfer]]:
    transfers: list[Transfer] = []
    copied = client.copy_expert(
        there.expert_version("expert-1"),
        there=there,
        address="nexusmix:https://there/expert-1@1",
        name="law",
        family="tiny",
        license="Apache-2.0",
        documents=documents,
        on_transfer=transfers.append,
    )
    return copied, transfers


def test_only_what_is_not_here_is_moved(
    client: Client, family: str, documents: Path, peer: dict[str, str]
) -> None:
    with Client(peer["address"], key=peer["key"]) as there:
        copied, transfers = copy(client, there, documents)
        again, none = copy(client, there, documents)
    store = blob_stores.store()
    manifest = tiny.store_manifest(store, expert=1)
    ffn = sum(len(data) for name, data in tiny.tensors(expert=1).items() if ".mlp." in name)
    num_bytes = ffn + documents.stat().st_size
    assert transfers[-1] == Transfer(num_bytes, num_bytes)
    assert (again.ref, none) == (copied.ref, [])
    assert copied.notes[0] == (f"from nexusmix:https://there/expert-1@1, SHA-256 {manifest.digest}")
    assert copied.manifest_digest is not None
    assert manifests.load(store, copied.manifest_digest).tensors == manifest.tensors


def test_a_line_that_breaks_is_taken_up(
    client: Client, family: str, documents: Path, peer: dict[str, str]
) -> None:
    cuts: list[Cut] = [(None, 4000), (None, 9000), (0, None)]
    with (
        cutting(peer["address"], cuts=cuts) as line,
        Client(line.address, key=peer["key"]) as there,
    ):
        copied, _ = copy(client, there, documents)
        assert line.cuts == []
    assert copied.manifest_digest is not None


def test_a_key_of_the_other_side_is_needed(
    client: Client, family: str, documents: Path, peer: dict[str, str], key: str
) -> None:
    with Client(peer["address"], key=key) as there, pytest.raises(Unauthenticated):
        copy(client, there, documents)
    with Client(peer["address"], key=peer["key"]) as there, pytest.raises(NotFound):
        there.expert_version("nobody@1")


def test_the_command_line_names_what_is_missing(
    installation: None,
    family: str,
    documents: Path,
    peer: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = f"--from=nexusmix:{peer['address']}/expert-1"
    assert run_here("register", source, *ABOUT) == 1
    assert "gives out no documents: name a file" in capsys.readouterr().err
    sample = f"--documents={documents}"
    assert run_here("register", source, *ABOUT, sample) == 1
    assert "with --from-key-file, or set NEXUSMIX_FROM_KEY" in capsys.readouterr().err
    assert run_here("register", source, *ABOUT, sample, f"--from-key-file={tmp_path}/none") == 1
    assert "there is no file" in capsys.readouterr().err
    assert run_here("family", "add", source, "--name=mine", "--license=MIT") == 1
    assert "only experts come from another nexusmix" in capsys.readouterr().err


def test_the_command_line_registers_what_another_nexusmix_has(
    installation: None,
    family: str,
    documents: Path,
    peer: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    key: str,
) -> None:
    monkeypatch.setenv("NEXUSMIX_FROM_KEY", peer["key"])
    failing = threading.Thread(target=fail_when_checking)
    failing.start()
    source = f"nexusmix:{peer['address']}/expert-1"
    done = run("register", f"--from={source}", *ABOUT, f"--documents={documents}")
    failing.join()
    # The stand-in of a worker ends the version once it was sent completely.
    assert "nexusmix: law@1 is failed: seen\n" in done.stderr
    with Client(address, key=key) as client:
        assert client.expert_version("law@1").notes[0].startswith(f"from {source}@1, SHA-256 ")
