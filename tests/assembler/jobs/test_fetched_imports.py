"""A worker fetches what a version is imported from, and only from outside."""

import json
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assembler.jobs import fetched_imports
from assembler.jobs.imports import Imported
from registry.blobs import blob_stores
from registry.database.tables import ExpertVersion, VersionState
from registry.errors import Forbidden, Incompatible, InvalidInput, NexusmixError, TimedOut, TooLarge
from registry.imports.sources import Source
from registry.settings import settings
from tests import hub, tiny, tiny_adapters, tiny_gguf
from tests.assembler.jobs.test_imports import add, version_now
from tests.assembler.workers import forget_jobs, processes_of_home, wait_for, worker
from tests.hub import COMMIT, Repo, TinyHub


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyHub]:
    repos = {
        "law": Repo.of(tiny.write_checkpoint(tmp_path / "law", expert=1)),
        "adapter": Repo.of(tiny_adapters.write(tmp_path / "adapter")),
        "gguf": Repo({"tiny.gguf": tiny_gguf.write(tmp_path / "tiny.gguf").read_bytes()}),
    }
    with hub.serving(**repos) as served:
        monkeypatch.setenv("NEXUSMIX_HUB_ENDPOINT", served.address)
        monkeypatch.setenv("NEXUSMIX_IMPORT_ORIGINS", served.address)
        settings.cache_clear()
        yield served


def run(address: str) -> tuple[ExpertVersion, Imported]:
    version = add(Source(kind="address", address=address))
    assert fetched_imports.is_wanted(version)
    made = fetched_imports.run(version, blob_stores.store(), on_progress=lambda _: None)
    return version, made


def origin_of(made: Imported) -> dict[str, Any] | None:
    origin = made.manifest.notes.origin
    return None if origin is None else origin.to_json()


def test_a_checkpoint_is_fetched_and_fitted(database: str, served: TinyHub) -> None:
    version, made = run("hf:tiny/law")
    blobs = blob_stores.store()
    assert made.manifest.tensors == tiny.store_manifest(blobs, expert=1).tensors
    assert origin_of(made) == {"address": "hf:tiny/law@main", "commit_hash": COMMIT}
    assert made.source is not None
    assert (made.source.kind, made.source.address) == ("address", "hf:tiny/law")
    assert all(blobs.size(digest) is not None for digest in made.manifest.digests())
    assert not (settings().asked_imports_path / str(version.id)).exists()


def test_an_adapter_is_fetched_merged_and_kept(database: str, served: TinyHub) -> None:
    _, made = run("hf:tiny/adapter")
    blobs = blob_stores.store()
    changed = {
        name
        for name, entry in made.manifest.tensors.items()
        if entry != tiny.store_manifest(blobs).tensors[name]
    }
    assert changed == {f"{module}.weight" for module in tiny_adapters.MODULES}
    assert made.summary == "LoRA adapter of rank 4 on down_proj, q_proj (2 layers)"
    assert made.source is not None
    assert made.source.kind == "adapter"
    assert made.source.address == "hf:tiny/adapter"
    assert all(blobs.size(digest) is not None for digest in made.source.digests())
    assert origin_of(made) == {"address": "hf:tiny/adapter@main", "commit_hash": COMMIT}


def test_a_gguf_file_is_fetched_from_an_address(database: str, served: TinyHub) -> None:
    url = f"{served.address}/tiny/gguf/bytes/tiny.gguf"
    _, made = run(f"{url}?signature=secret")
    expected = tiny.store_manifest(blob_stores.store(), expert=1)
    assert made.manifest.tensors == expected.tensors
    assert made.summary is not None
    assert made.summary.startswith("GGUF file, dequantized from BF16")
    origin = made.manifest.notes.origin
    assert origin is not None
    assert origin.address == url
    assert origin.digest is not None


def test_a_redirect_inwards_ends_the_import(database: str, served: TinyHub) -> None:
    with hub.serving(files=Repo({"a.gguf": b"GGUF" * 5000})) as inner:
        served.redirects["/open.gguf"] = f"{inner.address}/tiny/files/bytes/a.gguf"
        with pytest.raises(InvalidInput, match="does not fetch from http://127"):
            run(f"{served.address}/open.gguf")
        assert not inner.requests


def test_large_files_of_a_hub_that_lie_inwards_are_not_fetched(
    database: str, served: TinyHub
) -> None:
    with hub.serving() as inner:
        served.cdn = inner.address
        with pytest.raises(InvalidInput, match="does not fetch from"):
            run("hf:tiny/law")
        assert not inner.requests


def test_the_token_of_the_user_of_the_server_is_not_used(
    database: str, served: TinyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = served.repos["tiny/law"]
    repo.token, repo.is_gated = "hf_secret", True
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(Forbidden, match="is gated: the service asks without a token"):
        run("hf:tiny/law")
    assert not any("hf_secret" in str(headers) for _, _, headers in served.requests)


def test_the_operator_can_set_a_token(
    database: str, served: TinyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.repos["tiny/law"].token = "hf_secret"
    monkeypatch.setenv("NEXUSMIX_HUB_TOKEN", "hf_secret")
    settings.cache_clear()
    run("hf:tiny/law")


def test_a_file_over_the_limit_is_refused_before_its_bytes(
    database: str, served: TinyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_MAX_UPLOAD_BYTES", "9000")
    settings.cache_clear()
    with pytest.raises(TooLarge, match="at most 9000 are taken"):
        run("hf:tiny/law")
    assert not served.asked("model.safetensors")


def test_what_does_not_fit_the_family_is_refused(database: str, served: TinyHub) -> None:
    config = tiny.config() | {"rms_norm_eps": 0.5}
    served.repos["tiny/law"].files["config.json"] = json.dumps(config).encode()
    with pytest.raises(Incompatible, match="does not fit its family") as caught:
        run("hf:tiny/law")
    assert [problem.pointer for problem in caught.value.problems] == ["/config/rms_norm_eps"]
    assert served.sent["model.safetensors"] == 8 + len(tiny.safetensors_header(expert=1))


def test_an_adapter_of_another_network_is_refused_by_its_header(
    database: str, served: TinyHub
) -> None:
    files = served.repos["tiny/adapter"].files
    strange = {
        name.replace("layers.0", "layers.7"): values
        for name, values in tiny_adapters.tensors().items()
    }
    weights = files["adapter_model.safetensors"] = tiny_adapters.safetensors_bytes(strange)
    with pytest.raises(Incompatible, match="none of the family's seed"):
        run("hf:tiny/adapter")
    (length,) = struct.unpack("<Q", weights[:8])
    assert served.sent["adapter_model.safetensors"] == 8 + length < len(weights)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"head_count": 2}, "does not fit its family"),
        ({"words": [*tiny_gguf.tokens()[1:], "x"]}, "another vocabulary"),
    ],
)
@pytest.mark.parametrize("address", ["hf:tiny/gguf", "{served}/tiny/gguf/bytes/tiny.gguf"])
def test_a_gguf_file_of_another_network_is_refused_by_its_header(
    database: str,
    served: TinyHub,
    tmp_path: Path,
    address: str,
    change: dict[str, Any],
    sentence: str,
) -> None:
    data = tiny_gguf.write(tmp_path / "other.gguf", **change).read_bytes()
    served.repos["tiny/gguf"].files["tiny.gguf"] = data
    with pytest.raises(Incompatible, match=sentence):
        run(address.format(served=served.address))
    assert 0 < served.sent["tiny.gguf"] < len(data) / 2


@pytest.mark.parametrize("fits", [True, False])
def test_a_server_that_sends_whole_files_only_is_compared_afterwards(
    database: str, served: TinyHub, fits: bool
) -> None:
    served.has_ranges = False
    if fits:
        run("hf:tiny/law")
        return
    config = tiny.config() | {"rms_norm_eps": 0.5}
    served.repos["tiny/law"].files["config.json"] = json.dumps(config).encode()
    with pytest.raises(Incompatible, match="does not fit its family"):
        run("hf:tiny/law")


def test_an_import_that_lasts_too_long_is_given_up(
    database: str, served: TinyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUSMIX_UPLOAD_SECONDS", "0.01")
    settings.cache_clear()
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimedOut, match=r"the fetch took longer than 0\.01 s"):
        run("hf:tiny/law")
    assert signal.getsignal(signal.SIGALRM) is before


def test_an_address_that_is_none_is_refused(database: str, served: TinyHub) -> None:
    with pytest.raises(NexusmixError, match="cannot be imported"):
        run("ftp://example.com")


@pytest.mark.slow
def test_a_worker_fetches_checks_and_embeds(database: str, served: TinyHub) -> None:
    forget_jobs()
    add(Source(kind="address", address="hf:tiny/adapter"))
    with worker():
        wait_for(lambda: version_now().state is VersionState.READY, "the state ready")
    version = version_now()
    assert version.imported_from == "LoRA adapter of rank 4 on down_proj, q_proj (2 layers)"
    assert version.source is not None
    assert version.source["kind"] == "adapter"
    assert version.source["address"] == "hf:tiny/adapter"
    wait_for(lambda: not processes_of_home(), "the end of all processes")
