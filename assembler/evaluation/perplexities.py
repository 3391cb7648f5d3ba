"""Read held-out text with every network that a gate compares, each once: perplexity and routing.

Each result is cached under a digest of its network and text. A second mix of the same experts, an
extended mix, or an interrupted gate measures only what is new, and what is known of an expert since
its registration is not measured again. One network is in memory at a time.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from assembler.assembly import upcycle
from assembler.content_cache import made_once
from assembler.network import network_runner
from assembler.network.model import Network
from assembler.network.network_runner import ReadText
from assembler.progress import OnCount
from engine.gates.general_gate import GENERAL_TEXT
from engine.gates.perplexities import Perplexities, Routing
from registry.blobs import overlay_blobs
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest, json_digest
from registry.settings import settings

RESULT_FILE = "read-text.json"


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


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Windows [n, T] of held-out text: of each judged domain, and general ones if there are any."""

    domains: Mapping[str, Tensor]
    general: Tensor | None = None

    @property
    def all(self) -> dict[str, Tensor]:
        """Windows by domain; general text has the name GENERAL_TEXT."""
        general = {} if self.general is None else {GENERAL_TEXT: self.general}
        return {**self.domains, **general}

    def read_by_expert(self, name: str) -> dict[str, Tensor]:
        """Return the windows that an expert reads: of its own domain, and of general text."""
        return {key: text for key, text in self.all.items() if key in (name, GENERAL_TEXT)}


# Log-perplexities, in nats per token, by domain.
Measured = Mapping[str, float]


def measure(
    checkpoints: GateCheckpoints,
    texts: HeldOut,
    *,
    with_baselines: bool = False,
    blobs: BlobStore,
    on_progress: OnCount,
) -> dict[str, Perplexities]:
    """Return the perplexities on each domain's held-out text, and on GENERAL_TEXT if there is any.

    Seed and mixes read all texts. `with_baselines` says whether all experts do too, and the mean of
    seed and experts. `on_progress` receives the network that is read, and how many networks of how
    many are done.
    """
    tasks = _tasks(checkpoints, texts, blobs, with_baselines=with_baselines)
    results: dict[str, Measured] = {}
    for number, (role, task) in enumerate(tasks.items()):
        on_progress(f"perplexity of {role}", number, len(tasks))
        results[role] = task()
    on_progress("comparing with the served model", len(tasks), len(tasks))
    return {domain: _of_domain(results, checkpoints, domain) for domain in texts.all}


def of_checkpoint(manifest: Manifest, texts: Mapping[str, Tensor], blobs: BlobStore) -> Measured:
    """Return the log-perplexities of one network; load it only if one is not known."""
    return _log_perplexities(manifest.digest, texts, lambda: _network(manifest, blobs))


def routing(checkpoints: GateCheckpoints, windows: Tensor, blobs: BlobStore) -> Routing | None:
    """Return where a mix sends the windows [n, T] of a domain; None for one network.

    `measure` has found it: nothing is read again.
    """
    assembled, finetuned = checkpoints.assembled, checkpoints.finetuned
    names = assembled.architecture.expert_names
    if not names:
        return None

    def shares(mix: Manifest) -> dict[str, float]:
        read = _cached(mix.digest, windows, lambda: _network(mix, blobs))
        return dict(zip(names, read.first_choices, strict=True))

    after = None if finetuned is None else shares(finetuned)
    return Routing(assembled=shares(assembled), finetuned=after)


def _tasks(
    checkpoints: GateCheckpoints, texts: HeldOut, blobs: BlobStore, *, with_baselines: bool
) -> dict[str, Callable[[], Measured]]:
    """Return the measurements by role."""

    def single(manifest: Manifest, own: Mapping[str, Tensor]) -> Callable[[], Measured]:
        return lambda: of_checkpoint(manifest, own, blobs)

    every = texts.all
    tasks = {"seed": single(checkpoints.seed, every)}
    for name, expert in checkpoints.experts.items():
        own = every if with_baselines else texts.read_by_expert(name)
        tasks[_expert_role(name)] = single(expert, own)
    if with_baselines:
        dense = [checkpoints.seed, *checkpoints.experts.values()]
        tasks["merge"] = lambda: _of_merge(dense, every, blobs)
    mixes = {
        "assembled": checkpoints.assembled,
        "finetuned": checkpoints.finetuned,
        "compressed": checkpoints.compressed,
        "base": checkpoints.base,
    }
    return tasks | {role: single(mix, every) for role, mix in mixes.items() if mix is not None}


def _of_domain(
    results: Mapping[str, Measured], checkpoints: GateCheckpoints, domain: str
) -> Perplexities:
    values = {role: math.exp(found[domain]) for role, found in results.items() if domain in found}
    experts = {name: values.get(_expert_role(name)) for name in checkpoints.experts}
    return Perplexities(
        seed=values["seed"],
        experts={name: value for name, value in experts.items() if value is not None},
        merge=values.get("merge"),
        assembled=values["assembled"],
        finetuned=values.get("finetuned"),
        compressed=values.get("compressed"),
        base=values.get("base"),
    )


def _expert_role(name: str) -> str:
    return f"expert {name}"


def _of_merge(dense: Sequence[Manifest], texts: Mapping[str, Tensor], blobs: BlobStore) -> Measured:
    key = json_digest(["merge", *(manifest.digest for manifest in dense)])
    with overlay_blobs.beside(blobs) as aside:
        return _log_perplexities(key, texts, lambda: _network(upcycle.merge(dense, aside), aside))


def _log_perplexities(
    key: str, texts: Mapping[str, Tensor], load: Callable[[], Network]
) -> Measured:
    """Return a log-perplexity for each text; load the network of `key` if one is new."""
    load_once = cache(load)
    return {
        name: _cached(key, windows, load_once).log_perplexity for name, windows in texts.items()
    }


def _network(manifest: Manifest, blobs: BlobStore) -> Network:
    return Network.from_manifest(manifest, blobs, dtype=torch.float32)


def _cached(key: str, windows: Tensor, load: Callable[[], Network]) -> ReadText:
    """Read, or what was found for the same network and the same tokens before."""
    tokens = hashlib.sha256(repr(tuple(windows.shape)).encode() + windows.numpy().tobytes())
    # Results of another form have another name.
    name = json_digest([RESULT_FILE, key, tokens.hexdigest()])

    def make(folder: Path) -> None:
        read = network_runner.read(load(), windows)
        (folder / RESULT_FILE).write_text(json.dumps(asdict(read)))

    folder = made_once(settings().cache_path / "evaluations" / name[:2] / name[2:], make)
    return ReadText(**json.loads((folder / RESULT_FILE).read_text()))
