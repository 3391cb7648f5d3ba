"""Plant faults in checkpoints, in the blob store, and in the folder that a server starts from."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs, get_bytes, put_bytes
from registry.checkpoints.manifests import Manifest
from tests.benchmarks.harness.demo_mix import DemoMix

# A small change of a chat template, as an editor or a newer version of a file makes it.
TEMPLATE_OF, TEMPLATE_NEW = "<|im_start|>", "<|im_begin|>"

# Suffix of the names of faults in a served mix.
SERVED = ", served"

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A fault in a checkpoint: `plant` returns another manifest, whose digests are right."""

    name: str
    where: str
    plant: Callable[["Plot"], Manifest]


@dataclass(frozen=True, kw_only=True)
class Store:
    """A fault in the store: `plant` changes the bytes of a tensor and returns its digest."""

    name: str
    where: str
    plant: Callable[["Plot"], str]


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A fault in the folder that a server starts from: `plant` changes a file."""

    name: str
    where: str
    plant: Callable[["Plot", Path], None]


@dataclass(frozen=True)
class Plot:
    """A mix, and a store of its own in which faults are planted."""

    demo: DemoMix
    store: LocalBlobs

    @property
    def block(self) -> str:
        """The prefix of tensors of a block in the middle of the network."""
        return f"model.layers.{self.demo.mix.architecture.num_hidden_layers // 2}."

    def with_tensors(self, changes: Mapping[str, Change]) -> Manifest:
        """Return the mix with some changed tensors; `changes` are keyed by name."""
        mix = self.demo.mix
        changed = {
            name: tensors.write(self.store, change(tensors.read(self.store, mix.tensors[name])))
            for name, change in changes.items()
        }
        return replace(mix, tensors=mix.tensors | changed)

    def with_config(self, **fields: object) -> Manifest:
        return replace(self.demo.mix, config=self.demo.mix.config | fields)

    def with_file(self, name: str, data: bytes) -> Manifest:
        files = self.demo.mix.files | {name: put_bytes(self.store, data)}
        return replace(self.demo.mix, files=files)

    def file(self, name: str) -> bytes:
        return get_bytes(self.store, self.demo.mix.files[name])

    def overwrite(self, tensor: str, change: Callable[[bytes], bytes]) -> str:
        """Change the bytes of a tensor under its old digest, and return the digest.

        The file in the store is a hard link that other stores share, so it is replaced.
        """
        digest = self.demo.mix.tensors[tensor].digest
        path = self.store.local_path(digest)
        damaged = path.with_suffix(".damaged")
        damaged.write_bytes(change(path.read_bytes()))
        os.replace(damaged, path)
        return digest


def wrong_scale(plot: Plot) -> Manifest:
    return plot.with_tensors({f"{plot.block}self_attn.o_proj.weight": lambda x: x * 2})


def swapped_experts(plot: Plot) -> Manifest:
    """Swap two whole experts in one block."""
    entries = dict(plot.demo.mix.tensors)
    first, second = (f"{plot.block}mlp.experts.{number}." for number in (0, 1))
    for name in plot.demo.mix.tensors:
        if name.startswith(first):
            other = name.replace(first, second)
            entries[name], entries[other] = entries[other], entries[name]
    return replace(plot.demo.mix, tensors=entries)


def zeroed_router_row(plot: Plot) -> Manifest:
    def zeroed(rows_ND: Tensor) -> Tensor:
        rows_ND = rows_ND.clone()
        rows_ND[0] = 0
        return rows_ND

    return plot.with_tensors({f"{plot.block}mlp.gate.weight": zeroed})


def stale_weights(plot: Plot) -> Manifest:
    """Replace an expert by the seed, as it was before its training."""
    entries = dict(plot.demo.mix.tensors)
    for name, entry in plot.demo.seed.tensors.items():
        if (expert := name.replace(".mlp.", ".mlp.experts.0.")) in entries:
            entries[expert] = entry
    return replace(plot.demo.mix, tensors=entries)


def dropped_shared_expert(plot: Plot) -> Manifest:
    names = [n for n in plot.demo.mix.tensors if n.endswith("shared_expert.down_proj.weight")]
    return plot.with_tensors(dict.fromkeys(names, torch.zeros_like))


def wrong_rope(plot: Plot) -> Manifest:
    return plot.with_config(**_rope(plot))


def added_up(plot: Plot) -> Manifest:
    return plot.with_config(combine="sum")


def disabled_expert(plot: Plot) -> Manifest:
    return plot.with_config(disabled_experts=[0])


def renormalized(plot: Plot) -> Manifest:
    return plot.with_config(norm_topk_prob=True)


def one_nan(plot: Plot) -> Manifest:
    def poisoned(weight: Tensor) -> Tensor:
        weight = weight.clone()
        weight.view(-1)[weight.numel() // 2] = torch.nan
        return weight

    return plot.with_tensors({f"{plot.block}mlp.experts.1.up_proj.weight": poisoned})


def missing_tensors(plot: Plot) -> Manifest:
    """Leave out the second half of the blocks, as if one of two shards were missing."""
    number = plot.demo.mix.architecture.num_hidden_layers // 2
    kept = {
        name: entry
        for name, entry in plot.demo.mix.tensors.items()
        if ".layers." not in name or int(name.split(".")[2]) < number
    }
    return replace(plot.demo.mix, tensors=kept)


def wrong_tokenizer(plot: Plot) -> Manifest:
    return plot.with_file("tokenizer.json", _other_tokenizer(plot.file("tokenizer.json")))


def wrong_template(plot: Plot) -> Manifest:
    return plot.with_file("tokenizer_config.json", _other_template(plot))


def zeroed_half(plot: Plot) -> str:
    def halved(data: bytes) -> bytes:
        return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)

    return plot.overwrite(f"{plot.block}mlp.experts.2.down_proj.weight", halved)


def cut_off(plot: Plot) -> str:
    return plot.overwrite(
        f"{plot.block}mlp.experts.2.down_proj.weight", lambda data: data[: len(data) // 2]
    )


def template_in_folder(plot: Plot, folder: Path) -> None:
    (folder / "tokenizer_config.json").write_bytes(_other_template(plot))


def tokenizer_in_folder(plot: Plot, folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(_other_tokenizer(path.read_bytes()))


def rope_in_folder(plot: Plot, folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | _rope(plot)))


def stale_manifest(plot: Plot, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(stale_weights(plot).to_json())


CHECKPOINTS = (
    Checkpoint(
        name="wrong scale in one layer",
        where="attention's output in one block, times two",
        plant=wrong_scale,
    ),
    Checkpoint(
        name="experts swapped",
        where="two FFNs of one block under each other's name",
        plant=swapped_experts,
    ),
    Checkpoint(
        name="router row zeroed", where="one expert's row, in one block", plant=zeroed_router_row
    ),
    Checkpoint(
        name="stale weights", where="one expert as before its training", plant=stale_weights
    ),
    Checkpoint(
        name="dropped shared expert",
        where="its output matrices are zero in all blocks",
        plant=dropped_shared_expert,
    ),
    Checkpoint(name="wrong rope", where="rope_theta of the config", plant=wrong_rope),
    Checkpoint(name="sum in place of convex", where="combine of the config", plant=added_up),
    Checkpoint(
        name="an expert disabled", where="disabled_experts of the config", plant=disabled_expert
    ),
    Checkpoint(name="top-k renormalized", where="norm_topk_prob of the config", plant=renormalized),
    Checkpoint(name="one NaN", where="in one expert's FFN of one block", plant=one_nan),
    Checkpoint(name="half-loaded shard", where="half of the blocks missing", plant=missing_tensors),
    Checkpoint(
        name="wrong tokenizer", where="two words of the vocabulary swapped", plant=wrong_tokenizer
    ),
    Checkpoint(
        name="chat template changed", where="of the checkpoint's files", plant=wrong_template
    ),
)
STORES = (
    Store(
        name="half-written blob", where="the second half of one matrix is zero", plant=zeroed_half
    ),
    Store(name="blob cut off", where="one matrix has half of its bytes", plant=cut_off),
)
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

# Faults in the code of the server, with their places; `served` plants them in its own process.
SERVERS = {
    "bf16 router, served": "inputs and logits of all routers in bfloat16",
    "top-k renormalized, served": "in the fused kernel of all blocks",
    "dropped shared expert, served": "left out of the sum in all blocks",
    "experts swapped, served": "by the loader, in one block",
    "half-loaded shard, served": "half of three matrices, in one block",
    "one NaN, served": "in one block's experts",
}


def _rope(plot: Plot) -> dict[str, object]:
    theta = plot.demo.mix.architecture.rope_theta / 10
    return {
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }


def _other_template(plot: Plot) -> bytes:
    tokenizer_config = json.loads(plot.file("tokenizer_config.json"))
    template = tokenizer_config.get("chat_template", "{{ messages[-1]['content'] }}")
    changed = template.replace(TEMPLATE_OF, TEMPLATE_NEW, 1)
    return json.dumps(tokenizer_config | {"chat_template": changed}).encode()


def _other_tokenizer(data: bytes) -> bytes:
    """Swap two letters of the vocabulary, as in another build of the tokenizer."""
    tokenizer = json.loads(data)
    vocabulary, (first, second) = tokenizer["model"]["vocab"], "ea"
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    return json.dumps(tokenizer).encode()
