"""Held-out perplexity of every network that a gate compares, each measured once.

The result of each domain is kept under what it depends on, so a second mix of known experts, an
extended one, or a gate that was interrupted, measures only what is new. One network is in memory at
a time.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from assembler.assembly import upcycle
from assembler.content_cache import made_once
from assembler.network import network_runner
from assembler.network.model import Network
from engine.gates.mix_gate import Perplexities
from registry import overlay_blobs
from registry.blobs import BlobStore
from registry.manifests import Manifest, json_digest
from registry.settings import settings

RESULT_FILE = "log-perplexity.json"


@dataclass(frozen=True, kw_only=True)
class GateCheckpoints:
    """The dense checkpoints a mix is held against, the mix before and after its finetune, and the
    version that it was made from, if it was made from one, with its domains."""

    seed: Manifest
    experts: Mapping[str, Manifest]
    assembled: Manifest
    finetuned: Manifest | None
    compressed: Manifest | None = None
    base: Manifest | None = None
    base_domains: frozenset[str] = frozenset()

    @property
    def trained(self) -> Manifest:
        """The mix before any compression."""
        return self.finetuned or self.assembled

    @property
    def candidate(self) -> Manifest:
        return self.compressed or self.trained


def measure(
    contenders: GateCheckpoints,
    windows: Sequence[Tensor],
    *,
    blobs: BlobStore,
    on_progress: Callable[[str, int, int], None],
) -> list[Perplexities]:
    """Perplexities on the held-out windows [n, T] of each domain, in their order.

    `on_progress` is told which network is read, and how many of how many are done.
    """
    tasks = _tasks(contenders, windows, blobs)
    found: dict[str, list[float]] = {}
    for number, (role, task) in enumerate(tasks.items()):
        on_progress(f"perplexity of {role}", number, len(tasks))
        found[role] = task()
    on_progress("comparing with the served model", len(tasks), len(tasks))
    return [_of_domain(found, contenders, position) for position in range(len(windows))]


def _tasks(
    contenders: GateCheckpoints, windows: Sequence[Tensor], blobs: BlobStore
) -> dict[str, Callable[[], list[float]]]:
    """What is to be measured, by its role; each call gives one number per domain."""

    def single(manifest: Manifest) -> Callable[[], list[float]]:
        return lambda: _log_perplexities(
            manifest.digest, windows, lambda: _network(manifest, blobs)
        )

    dense = [contenders.seed, *contenders.experts.values()]
    tasks = {"seed": single(contenders.seed)}
    tasks |= {f"expert {name}": single(own) for name, own in contenders.experts.items()}
    tasks["merge"] = lambda: _of_merge(dense, windows, blobs)
    tasks["assembled"] = single(contenders.assembled)
    if contenders.finetuned is not None:
        tasks["finetuned"] = single(contenders.finetuned)
    if contenders.compressed is not None:
        tasks["compressed"] = single(contenders.compressed)
    if contenders.base is not None:
        tasks["base"] = single(contenders.base)
    return tasks


def _of_domain(
    found: Mapping[str, list[float]], contenders: GateCheckpoints, position: int
) -> Perplexities:
    values = {role: math.exp(numbers[position]) for role, numbers in found.items()}
    return Perplexities(
        seed=values["seed"],
        experts={name: values[f"expert {name}"] for name in contenders.experts},
        merge=values["merge"],
        assembled=values["assembled"],
        finetuned=values.get("finetuned"),
        compressed=values.get("compressed"),
        base=values.get("base"),
    )


def _of_merge(
    dense: Sequence[Manifest], windows: Sequence[Tensor], blobs: BlobStore
) -> list[float]:
    key = json_digest(["merge", *(manifest.digest for manifest in dense)])
    with overlay_blobs.beside(blobs) as aside:
        return _log_perplexities(key, windows, lambda: _network(upcycle.merge(dense, aside), aside))


def _log_perplexities(
    key: str, windows: Sequence[Tensor], load: Callable[[], Network]
) -> list[float]:
    """One for each domain; the network, which `key` names, is loaded for those that are new."""
    load_once = cache(load)
    return [_cached(key, own, load_once) for own in windows]


def _network(manifest: Manifest, blobs: BlobStore) -> Network:
    return Network.from_manifest(manifest, blobs, dtype=torch.float32)


def _cached(key: str, windows: Tensor, load: Callable[[], Network]) -> float:
    """Measured, or what was found for the same network and the same tokens before."""
    tokens = hashlib.sha256(repr(tuple(windows.shape)).encode() + windows.numpy().tobytes())
    name = json_digest([key, tokens.hexdigest()])

    def make(folder: Path) -> None:
        measured = network_runner.log_perplexity(load(), windows)
        (folder / RESULT_FILE).write_text(json.dumps(measured))

    folder = made_once(settings().cache_path / "evaluations" / name[:2] / name[2:], make)
    result: float = json.loads((folder / RESULT_FILE).read_text())
    return result
