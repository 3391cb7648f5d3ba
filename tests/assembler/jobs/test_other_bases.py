"""A whole mix of experts of another base: checked, assembled, finetuned, gated and served."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from assembler.mixes import mixes
from assembler.mixes.new_mix import NewMix
from assembler.recipes.recipe import Finetune
from assembler.tables import MixState
from engine.vllm_server import endpoints, vllm_process
from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore
from registry.catalog import experts, families
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import is_ffn
from registry.database import db
from registry.database.tables import Expert, ExpertVersion, Family, VersionState
from registry.settings import settings
from tests import tiny
from tests.assembler import base_networks
from tests.assembler.workers import (
    LENIENT,
    WHOLE,
    forget_jobs,
    phases,
    processes_of_home,
    wait_for,
    wait_until_over,
    worker,
)

pytestmark = pytest.mark.long

SHORT = Finetune(tokens=4 * 4 * 32, batch_size=4, sequence_length=32)
NAMES = ("expert-1", "expert-2")


@pytest.fixture(autouse=True)
def clean(database: str) -> Iterator[None]:
    """Delete the jobs of earlier tests, and check that this test leaves no process."""
    forget_jobs()
    yield
    wait_for(lambda: not processes_of_home(), "the end of all processes")


def register_seed(base: str, blobs: BlobStore) -> Manifest:
    """Add a family as the upload of its seed leaves it; return the seed."""
    seed = base_networks.store(blobs, base_networks.dense(base))
    with db.transaction() as session:
        family = Family(
            name="tiny",
            license="Apache-2.0",
            state=VersionState.CHECKING,
            seed_digest=manifests.store(blobs, seed),
        )
        session.add(family)
    return seed


def register_experts(base: str, seed: Manifest, blobs: BlobStore) -> None:
    """Add two experts that differ from the seed in their FFNs, as their uploads leave them."""
    with db.transaction() as session:
        family = families.find(session, "tiny")
        for number, name in enumerate(NAMES, start=1):
            other = base_networks.store(blobs, seed.architecture, seed=number)
            own = {n: entry for n, entry in other.tensors.items() if is_ffn(n)}
            version = ExpertVersion(
                expert=Expert(name=name, family=family, license="Apache-2.0"),
                number=1,
                state=VersionState.CHECKING,
                license="Apache-2.0",
                manifest_digest=manifests.store(blobs, replace(seed, tensors=seed.tensors | own)),
                documents_digest=tiny.store_documents(blobs, expert=number),
            )
            session.add(version)


def states() -> set[VersionState]:
    with db.transaction() as session:
        versions = [experts.find_version(session, expert=name, number=1) for name in NAMES]
        return {version.state for version in versions}


def seed_state() -> VersionState:
    with db.transaction() as session:
        return families.find(session, "tiny").state


@pytest.mark.parametrize("base", ["qwen2", "qwen3"])
def test_experts_of_another_base_become_a_mix_that_answers(database: str, base: str) -> None:
    blobs = blob_stores.store()
    seed = register_seed(base, blobs)
    with worker():
        wait_for(lambda: seed_state() is VersionState.READY, "the family")
        register_experts(base, seed, blobs)
        wait_for(lambda: states() == {VersionState.READY}, "the experts")
        with db.transaction() as session:
            # Its rows are means of router inputs, and it needs no projection of the family.
            wanted = NewMix(
                name="mine",
                family="tiny",
                experts=NAMES,
                preset="flexolmo",
                finetune=SHORT.model_dump(),
                gates=LENIENT.model_dump(),
            )
            version = mixes.request(session, blobs, wanted)
        done = wait_until_over(version.id)
    assert (done.state, done.error) == (MixState.SUCCEEDED, None)
    assert phases(version.job_id) == WHOLE
    assert done.trained_digest is not None
    mix = manifests.load(blobs, done.trained_digest)
    assert mix.config["model_type"] == "nexus"
    assert mix.config["base_model_type"] == base
    log_path = settings().home / "served.log"
    with vllm_process.serving(mix, blobs=blobs, log_path=log_path, model="mine") as server:
        server.wait_ready()
        request = {
            "model": "mine",
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 4,
        }
        with endpoints.client(server.address, timeout=60) as client:
            answer = client.post("/v1/chat/completions", json=request).json()
    assert answer["usage"]["completion_tokens"] == 4
