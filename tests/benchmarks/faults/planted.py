"""Kinds of faults, and the means to plant them: in checkpoints, blobs, folders, and in code."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs, get_bytes, put_bytes
from registry.checkpoints.manifests import Manifest
from tests.benchmarks.faults.subjects import Subject

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A fault in a checkpoint: `plant` returns another manifest, whose digests are right.

    The candidate is a mix without training, or one that was finetuned.
    """

    name: str
    where: str
    plant: Callable[["Plot"], Manifest]
    candidate: Literal["assembled", "finetuned"] = "assembled"


@dataclass(frozen=True, kw_only=True)
class Store:
    """A fault in the store: `plant` changes the bytes of a blob under its old digest."""

    name: str
    where: str
    plant: Callable[["Plot"], object]


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A fault in the folder that an engine starts from: `plant` changes a file."""

    name: str
    where: str
    plant: Callable[["Plot", Path], None]


@dataclass(frozen=True, kw_only=True)
class Code:
    """A fault in the code of the assembler: within `plant()` it assembles wrongly.

    It is planted in the assembly of the mix and in the second one of its gate.
    """

    name: str
    where: str
    plant: Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True)
class Plot:
    """A candidate, and a store of its own in which faults are planted."""

    subject: Subject
    store: LocalBlobs

    @property
    def mix(self) -> Manifest:
        return self.subject.checkpoints.candidate

    @property
    def layer(self) -> int:
        """A block in the middle of the network."""
        return self.mix.architecture.num_hidden_layers // 2

    @property
    def block(self) -> str:
        """The prefix of the tensors of that block."""
        return f"model.layers.{self.layer}."

    def with_tensors(self, changes: Mapping[str, Change]) -> Manifest:
        """Return the mix with some changed tensors; `changes` are keyed by name."""
        changed = {
            name: tensors.write(self.store, change(self.read(name)))
            for name, change in changes.items()
        }
        return replace(self.mix, tensors=self.mix.tensors | changed)

    def with_rows(self, name: str, change: Callable[[Tensor], object]) -> Manifest:
        """Return the mix with a tensor that `change` changes in place."""

        def changed(tensor: Tensor) -> Tensor:
            tensor = tensor.clone()
            change(tensor)
            return tensor

        return self.with_tensors({name: changed})

    def exchanged(self, one: str, other: str) -> Manifest:
        """Return the mix in which tensors whose names begin with `one` and `other` are swapped."""
        entries = dict(self.mix.tensors)
        for name in self.mix.tensors:
            if name.startswith(one):
                twin = name.replace(one, other)
                entries[name], entries[twin] = entries[twin], entries[name]
        return replace(self.mix, tensors=entries)

    def with_config(self, **fields: object) -> Manifest:
        return replace(self.mix, config=self.mix.config | fields)

    def with_file(self, name: str, data: bytes) -> Manifest:
        return replace(self.mix, files=self.mix.files | {name: put_bytes(self.store, data)})

    def file(self, name: str) -> bytes:
        return get_bytes(self.store, self.mix.files[name])

    def read(self, name: str, *, of: Manifest | None = None) -> Tensor:
        return tensors.read(self.store, (of or self.mix).tensors[name])

    def overwrite(self, tensor: str, change: Callable[[bytes], bytes]) -> None:
        """Change the bytes of a tensor under its old digest.

        The file in the store is a hard link that other stores share, so it is replaced.
        """
        path = self.store.local_path(self.mix.tensors[tensor].digest)
        damaged = path.with_suffix(".damaged")
        damaged.write_bytes(change(path.read_bytes()))
        damaged.replace(path)


def poisoned(weight: Tensor) -> Tensor:
    """Return a tensor with one NaN in its middle."""
    weight = weight.clone()
    weight.view(-1)[weight.numel() // 2] = torch.nan
    return weight
