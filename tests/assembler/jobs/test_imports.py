"""A worker imports what was announced; it ends ready, or failed with a reason."""

from pathlib import Path

import numpy as np
import pytest

from assembler.jobs import imports
from registry.blobs import blob_stores
from registry.blobs.blobs import put_bytes
from registry.catalog import experts
from registry.checkpoints import manifests, numpy_tensors
from registry.database import db
from registry.database.tables import Expert, ExpertVersion, VersionState
from registry.errors import Incompatible, InvalidCheckpoint
from registry.imports.sources import Source
from tests import tiny, tiny_adapters, tiny_gguf
from tests.assembler import rows
from tests.assembler.workers import forget_jobs, processes_of_home, wait_for, worker


def add_adapter(*, data: bytes | None = None) -> ExpertVersion:
    """Add an expert `law` as the upload of its adapter leaves it."""
    blobs = blob_stores.store()
    data = data or tiny_adapters.safetensors_bytes(tiny_adapters.tensors())
    source = Source(
        kind="adapter",
        digest=put_bytes(blobs, data),
        size=len(data),
        config=tiny_adapters.config(),
        files={"chat_template.jinja": put_bytes(blobs, tiny.CHAT_TEMPLATE.encode())},
    )
    return add(source)


def add(source: Source) -> ExpertVersion:
    """Add an expert `law` that a worker has to import."""
    blobs = blob_stores.store()
    with db.transaction() as session:
        family = rows.add_family(session, blobs)
        version = ExpertVersion(
            expert=Expert(name="law", family=family, license="CC0-1.0"),
            number=1,
            state=VersionState.IMPORTING,
            license="CC0-1.0",
            source=source.to_json(),
            imported_from="LoRA adapter",
            documents_digest=tiny.store_documents(blobs, expert=1),
        )
        session.add(version)
    return version_now()


def version_now() -> ExpertVersion:
    with db.transaction() as session:
        return experts.find_version(session, expert="law", number=1)


def test_an_adapter_becomes_a_checkpoint_with_its_own_files(database: str) -> None:
    blobs, said = blob_stores.store(), list[str]()
    manifest = imports.run(add_adapter(), blobs, on_progress=said.append).manifest
    seed = tiny.store_manifest(blobs)

    changed = {n for n, entry in manifest.tensors.items() if entry != seed.tensors[n]}
    assert changed == {f"{module}.weight" for module in tiny_adapters.MODULES}
    assert manifest.config == seed.config
    assert set(manifest.files) == {*seed.files, "chat_template.jinja"}
    assert said[-1] == "merging model.layers.1.mlp.down_proj.weight (2 of 2)"


def test_bytes_that_are_no_adapter_are_refused(database: str) -> None:
    version = add_adapter(data=b"\x08\0\0\0\0\0\0\0{}      rest")
    with pytest.raises(InvalidCheckpoint, match=r"the header of adapter_model\.safetensors"):
        imports.run(version, blob_stores.store(), on_progress=lambda _: None)


def test_a_gguf_file_becomes_the_checkpoint_it_was_made_of(database: str, tmp_path: Path) -> None:
    blobs = blob_stores.store()
    data = tiny_gguf.write(tmp_path / "tiny.gguf").read_bytes()
    source = Source(kind="gguf", digest=put_bytes(blobs, data), size=len(data))
    manifest = imports.run(add(source), blobs, on_progress=lambda _: None).manifest
    assert manifest.tensors == tiny.store_manifest(blobs, expert=1).tensors
    assert manifest.files == tiny.store_manifest(blobs).files


def test_a_gguf_file_with_other_words_is_refused(database: str, tmp_path: Path) -> None:
    blobs, words = blob_stores.store(), tiny_gguf.tokens()
    words[7:9] = words[8], words[7]
    data = tiny_gguf.write(tmp_path / "tiny.gguf", words=words).read_bytes()
    source = Source(kind="gguf", digest=put_bytes(blobs, data), size=len(data))
    with pytest.raises(Incompatible, match="another vocabulary"):
        imports.run(add(source), blobs, on_progress=lambda _: None)


@pytest.mark.slow
def test_a_worker_imports_checks_and_embeds_an_adapter(database: str) -> None:
    forget_jobs()
    add_adapter()
    with worker():
        wait_for(lambda: version_now().state is VersionState.READY, "the state ready")
    version = version_now()
    assert (version.error, version.progress) == (None, None)
    manifest = manifests.load(blob_stores.store(), experts.checkpoint_digest(version))
    name = f"{tiny_adapters.MODULES[0]}.weight"
    merged = numpy_tensors.read(blob_stores.store(), manifest.tensors[name])
    before = numpy_tensors.read(
        blob_stores.store(), tiny.store_manifest(blob_stores.store()).tensors[name]
    )
    assert np.abs(merged - before).max() > 0.1
    wait_for(lambda: not processes_of_home(), "the end of all processes")


@pytest.mark.slow
def test_an_import_that_fails_keeps_its_reason(database: str) -> None:
    forget_jobs()
    broken = tiny_adapters.tensors()
    broken[f"{tiny_adapters.PREFIX}{tiny_adapters.MODULES[0]}.lora_A.weight"][0, 0] = np.nan
    add_adapter(data=tiny_adapters.safetensors_bytes(broken))
    with worker():
        wait_for(lambda: version_now().state is VersionState.FAILED, "the state failed")
    assert "holds NaN or infinity" in (version_now().error or "")
    wait_for(lambda: not processes_of_home(), "the end of all processes")
