"""The experts of `tests.benchmarks.zero_tokens`, in a store: real ones, or tiny ones to try it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from assembler import dense
from assembler import seed as seeds
from assembler.corpora import domains
from assembler.dense import ExpertTraining
from engine import tensors
from registry.blobs import LocalBlobs, put_bytes
from registry.documents import Document, parse
from registry.manifests import Manifest
from service.demo_family import DOCUMENTS_PER_DOMAIN, EXPERT_TRAINING
from tests import tiny
from tests.benchmarks import reports

FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
NUM_TINY_EXPERTS = 2


@dataclass(frozen=True, kw_only=True)
class Experts:
    """`documents` are the experts', in their order; `public` those of other domains."""

    seed: Manifest
    experts: Mapping[str, Manifest]
    documents: Sequence[Sequence[Document]]
    public: Mapping[str, Sequence[Document]]


def real(blobs: LocalBlobs) -> Experts:
    """The demo's three and those that join later, trained or found in the cache."""
    owned = domains.EXPERT_DOMAINS + domains.FURTHER_DOMAINS
    texts = domains.fetch(
        owned + domains.PROJECTION_DOMAINS, limit=DOCUMENTS_PER_DOMAIN, on_progress=reports.say
    )
    seed = seeds.seed_folder()
    folders = {
        domain.name: dense.train_expert(
            seed,
            texts[domain.name],
            training=ExpertTraining.model_validate(EXPERT_TRAINING),
            on_progress=lambda _: None,
        )
        for domain in owned
    }
    own = {name: parse([path.read_bytes()]) for name, path in texts.items()}
    return Experts(
        seed=_store(seed, blobs),
        experts={name: _store(folder, blobs) for name, folder in folders.items()},
        documents=[own[domain.name] for domain in owned],
        public={domain.name: own[domain.name] for domain in domains.PROJECTION_DOMAINS},
    )


def tiny_ones(blobs: LocalBlobs) -> Experts:
    numbers = range(1, NUM_TINY_EXPERTS + 1)
    return Experts(
        seed=tiny.store_manifest(blobs),
        experts={f"expert-{i}": tiny.store_manifest(blobs, expert=i) for i in numbers},
        documents=[tiny.sample_documents(expert=i) for i in numbers],
        public={f"public-{i}": tiny.sample_documents(expert=i) for i in range(5, 8)},
    )


def _store(folder: Path, blobs: LocalBlobs) -> Manifest:
    """A Hugging Face folder with one file of weights, as a checkpoint in the store."""
    weights = load_file(folder / "model.safetensors")
    return Manifest(
        config=json.loads((folder / "config.json").read_text()),
        tensors={name: tensors.write(blobs, tensor) for name, tensor in weights.items()},
        files={name: put_bytes(blobs, (folder / name).read_bytes()) for name in FILES},
    )
