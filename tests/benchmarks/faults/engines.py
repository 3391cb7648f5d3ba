"""Faults in what an engine starts from, in its code, and in blobs after the gate has read them."""

import json
from pathlib import Path

from engine.vllm_plugin.model_folder import materialize
from engine.vllm_server import vllm_process
from registry.errors import NexusmixError
from registry.settings import settings
from tests.benchmarks.faults import staging, stored
from tests.benchmarks.faults.judging import Verdict, by_gate, refused
from tests.benchmarks.faults.planted import Folder, Plot, Store
from tests.benchmarks.faults.subjects import Subject


def template_in_folder(plot: Plot, folder: Path) -> None:
    (folder / "tokenizer_config.json").write_bytes(stored.other_template(plot))


def tokenizer_in_folder(plot: Plot, folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(stored.other_tokenizer(path.read_bytes()))


def rope_in_folder(plot: Plot, folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | stored.rope(plot)))


def stale_manifest(plot: Plot, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(stored.stale_weights(plot).to_json())


FOLDERS = (
    Folder(
        name="chat template changed, served",
        where="tokenizer_config.json of the folder",
        plant=template_in_folder,
    ),
    Folder(
        name="wrong tokenizer, served",
        where="tokenizer.json of the folder",
        plant=tokenizer_in_folder,
    ),
    Folder(name="wrong rope, served", where="config.json of the folder", plant=rope_in_folder),
    Folder(
        name="stale weights, served",
        where="manifest.json of the folder is an older one",
        plant=stale_manifest,
    ),
)
# Faults in the code of the engine, with their places; `served` plants them in its own process.
CODE = {
    "bf16 router, served": "inputs and logits of all routers in bfloat16",
    "routers twice as sure, served": "logits of all routers, times two",
    "top-k renormalized, served": "in the fused kernel of all blocks",
    "dropped shared expert, served": "left out of the sum in all blocks",
    "experts swapped, served": "by the loader, in one block",
    "half-loaded shard, served": "half of three matrices, in one block",
    "one NaN, served": "in one block's experts",
}
AT_DEPLOYMENT = Store(
    name="one bit, at a deployment",
    where="of one matrix, after the gate",
    plant=next(fault.plant for fault in stored.STORES if fault.name == "one bit"),
)


def of_folder(subject: Subject, fault: Folder) -> Verdict:
    with staging.own_home(subject.blobs) as store:
        mix = subject.checkpoints.candidate
        fault.plant(
            Plot(subject, store), materialize(mix, store, root=settings().cache_path / "serving")
        )
        return by_gate(subject, store)


def of_code(subject: Subject, name: str) -> Verdict:
    with staging.own_home(subject.blobs) as store, staging.damaged_engine(name):
        return by_gate(subject, store)


def of_deployment(subject: Subject, fault: Store) -> Verdict:
    """Start an engine as a deployment does, from a blob that was changed after the gate."""
    with staging.own_home(subject.blobs) as store:
        fault.plant(Plot(subject, store))
        try:
            with vllm_process.serving(
                subject.checkpoints.candidate, blobs=store, log_path=settings().home / "server.log"
            ) as running:
                running.wait_ready()
        except NexusmixError as error:
            return refused(error)
        return Verdict(seen_by=(), words="", figures={})
