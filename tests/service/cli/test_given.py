"""Commands take a folder, or fetch from an address."""

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from registry.blobs import blob_stores
from registry.catalog import experts
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Origin
from registry.database import db
from registry.database.tables import ExpertVersion, VersionState
from registry.errors import InvalidInput
from registry.fetching.addresses import HubAddress
from registry.ingest.checkpoint_folder import check_headers
from registry.settings import settings
from service.cli import given
from service.client.client import Client
from tests import factories, hub, tiny, tiny_adapters
from tests.hub import COMMIT, Repo, TinyHub
from tests.service.command_line import run, run_here

PATIENCE_SECONDS = 60.0
ABOUT = ["--name=law", "--family=tiny", "--license=CC0-1.0"]
ORIGIN = Origin(address="hf:tiny/law@main", commit_hash=COMMIT)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyHub]:
    repo = Repo.of(tiny.write_checkpoint(tmp_path / "law", expert=1))
    adapter = Repo.of(tiny_adapters.write(tmp_path / "adapter"))
    with hub.serving(law=repo, adapter=adapter) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        settings.cache_clear()
        yield served


def test_a_folder_or_an_address_is_given() -> None:
    assert given.chosen(Path("folder"), None) == Path("folder")
    assert given.chosen(None, "hf:o/n") == HubAddress("o/n")
    for folder, address in ((None, None), (Path("folder"), "hf:o/n")):
        with pytest.raises(InvalidInput, match="either a folder or an address"):
            given.chosen(folder, address)
    local = given.local(Path("folder"), lambda _: None, check=check_headers)
    assert local == (Path("folder"), None)


def test_an_expert_is_registered_from_a_hub(
    installation: None, served: TinyHub, address: str, key: str
) -> None:
    with db.transaction() as session:
        factories.make_family(session, blob_stores.store())
    failing = threading.Thread(target=fail_when_checking)
    failing.start()
    done = run("register", "--from=hf:tiny/law", *ABOUT)
    failing.join()

    # The stand-in of a worker ends the version once it was sent completely.
    assert "nexusmix: law@1 is failed: seen\n" in done.stderr
    with Client(address, key=key) as client:
        version = client.expert_version("law@1")
    assert version.notes[0] == f"from hf:tiny/law@main, commit {COMMIT}"
    assert version.manifest_digest is not None
    manifest = manifests.load(blob_stores.store(), version.manifest_digest)
    assert manifest.notes.origin == ORIGIN
    assert manifest.tensors == tiny.store_manifest(blob_stores.store(), expert=1).tensors


def fail_when_checking() -> None:
    """Do what a worker does whose check of the first version fails."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with db.transaction() as session:
            version = session.get(ExpertVersion, 1)
            if version is not None and version.state is VersionState.CHECKING:
                return experts.mark_failed(session, 1, error="seen")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["register", "--from=ftp://x", *ABOUT], "'ftp://x' cannot be imported: give hf:OWNER"),
        (["register", *ABOUT], "give either a folder or an address with --from"),
        (["register", "--from=hf:tiny/law", *ABOUT[:2], "--license=none"], "the license 'none'"),
        (["register", "--from=hf:tiny/law", *ABOUT, "--documents=none.txt"], "there is no file"),
        (["register", "--from=hf:tiny/law", *ABOUT], "no family 'tiny'"),
        (["family", "add", "--from=hf:a/b/c", *ABOUT[::2]], "'a/b/c' is no repository"),
        (["family", "add", "--from=hf:tiny/law", "--name=a/b", ABOUT[2]], "'a/b' cannot be a name"),
    ],
)
def test_a_wrong_input_is_one_sentence_before_anything_is_fetched(
    installation: None,
    served: TinyHub,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    sentence: str,
) -> None:
    assert run_here(*command) == 1
    assert f"nexusmix: {sentence}" in capsys.readouterr().err.replace(
        "'hf:a/b/c' cannot be imported: ", ""
    )
    assert not served.requests


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("config.json", tiny.config() | {"rms_norm_eps": 0.5}, "/config/rms_norm_eps: is 0.5"),
        ("documents.jsonl", {"id": 1}, "documents.jsonl"),
    ],
)
def test_what_does_not_fit_the_family_is_refused_before_its_weights(
    installation: None,
    served: TinyHub,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: dict[str, Any],
    sentence: str,
) -> None:
    with db.transaction() as session:
        factories.make_family(session, blob_stores.store())
    served.repos["tiny/law"].files[name] = json.dumps(content).encode()
    assert run_here("register", "--from=hf:tiny/law", *ABOUT) == 1
    assert sentence in capsys.readouterr().err
    assert served.sent["model.safetensors"] == 8 + len(tiny.safetensors_header(expert=1))


def test_a_seed_that_is_none_is_refused_before_its_weights(
    installation: None, served: TinyHub, capsys: pytest.CaptureFixture[str]
) -> None:
    del served.repos["tiny/law"].files["tokenizer.json"]
    assert run_here("family", "add", "--from=hf:tiny/law", "--name=law", ABOUT[2]) == 1
    assert "tokenizer.json" in capsys.readouterr().err
    assert served.sent["model.safetensors"] == 8 + len(tiny.safetensors_header(expert=1))


def test_an_adapter_keeps_where_it_is_from(
    served: TinyHub, address: str, key: str, tmp_path: Path
) -> None:
    with db.transaction() as session:
        factories.make_family(session, blob_stores.store())
    documents = tmp_path / "law" / "documents.jsonl"
    with Client(address, key=key) as client:
        check = partial(client.check_source, family="tiny", documents=documents)
        path, origin = given.local(HubAddress("tiny/adapter"), lambda _: None, check=check)
        client.register_expert(
            path,
            name="law",
            family="tiny",
            license="CC0-1.0",
            documents=documents,
            origin=origin,
        )
    with db.transaction() as session:
        source = experts.find_version(session, expert="law", number=1).source
    assert source is not None
    assert source["origin"] == {"address": "hf:tiny/adapter@main", "commit_hash": COMMIT}
