"""Measure the held-out perplexity of every network that a gate compares, each once.

Each result is cached under a digest of its network and text. A second mix of the same experts, an
extended mix, or an interrupted gate measures only what is new. One network is in memory at a time.
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
from assembler.progress import OnCount
from engine.gates.perplexities import Perplexities
from registry.blobs import overlay_blobs
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest, json_digest
from registry.settings import settings

RESULT_FILE = "log-perplexity.json"


@dataclass(frozen=True, kw_only=True)
class GateCheckpoints:
    """The checkpoints that a mix's gate compares.

    `assembled`, `finetuned` and `compressed` are the mix after each step. `base` is the version
    that it was made from, if any, and `base_domains` are the domains of that version.
    """

    seed: Manifest
    experts: Mapping[str, Manifest]
    assembled: Manifest
    finetuned: Manifest | None
    compressed: Manifest | None = None
    base: Manifest | None = None
    base_domains: frozenset[str] = frozenset()

    @property
    def trained(self) -> Manifest:
        """Return the mix before any compression."""
        return self.finetuned or self.assembled

    @property
    def candidate(self) -> Manifest:
        return self.compressed or self.trained


def measure(
    checkpoints: GateCheckpoints,
    windows: Sequence[Tensor],
    *,
    blobs: BlobStore,
    on_progress: OnCount,
) -> list[Perplexities]:
    """Return the perplexities on the held-out windows [n, T] of each domain, in their order.

    `on_progress` receives the network that is read, and how many networks of how many are done.
    """
    tasks = _tasks(checkpoints, windows, blobs)
    results: dict[str, list[float]] = {}
    for number, (role, task) in enumerate(tasks.items()):
        on_progress(f"perplexity of {role}", number, len(tasks))
        results[role] = task()
    on_progress("comparing with the served model", len(tasks), len(tasks))
    return [_of_domain(results, checkpoints, position) for position in range(len(windows))]


def _tasks(
    checkpoints: GateCheckpoints, windows: Sequence[Tensor], blobs: BlobStore
) -> dict[str, Callable[[], list[float]]]:
    """Return the measurements by role; each call returns one number for each domain."""

    def single(manifest: Manifest) -> Callable[[], list[float]]:
        return lambda: _log_perplexities(
            manifest.digest, windows, lambda: _network(manifest, blobs)
        )

    dense = [checkpoints.seed, *checkpoints.experts.values()]
    tasks = {"seed": single(checkpoints.seed)}
    tasks |= {f"expert {name}": single(expert) for name, expert in checkpoints.experts.items()}
    tasks["merge"] = lambda: _of_merge(dense, windows, blobs)
    tasks["assembled"] = single(checkpoints.assembled)
    if checkpoints.finetuned is not None:
        tasks["finetuned"] = single(checkpoints.finetuned)
    if checkpoints.compressed is not None:
        tasks["compressed"] = single(checkpoints.compressed)
    if checkpoints.base is not None:
        tasks["base"] = single(checkpoints.base)
    return tasks


def _of_domain(
    results: Mapping[str, list[float]], checkpoints: GateCheckpoints, position: int
) -> Perplexities:
    values = {role: math.exp(numbers[position]) for role, numbers in results.items()}
    return Perplexities(
        seed=values["seed"],
        experts={name: values[f"expert {name}"] for name in checkpoints.experts},
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
    """Return one log-perplexity for each domain; load the network of `key` if one is new."""
    load_once = cache(load)
    return [_cached(key, domain, load_once) for domain in windows]


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
