"""Train a small Llama from scratch, and experts from it.

The seed and its tokenizer learn from the domains of the projection, each expert from its own
domain. Unlike SmolLM2, such a family can have another random start, parallel blocks, and experts
with trained attention. The cache keeps everything that was trained.
"""

import hashlib
import itertools
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from assembler.compute_dtype import fastest
from assembler.content_cache import made_once
from assembler.demo.corpora.domains import (
    EXPERT_DOMAINS,
    FURTHER_DOMAINS,
    PROJECTION_DOMAINS,
    Domain,
    fetch,
)
from assembler.demo.corpora.public_texts import DOCUMENTS_PER_DOMAIN
from assembler.network.model import Network
from assembler.recipes.recipe import Training
from assembler.training.batches import DomainBatches, TokenReader
from assembler.training.optimizer import Clock, learning_rate_factor, set_learning_rates
from registry.blobs.blobs import LocalBlobs
from registry.catalog.documents import Document, parse, serialize
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import json_digest
from registry.checkpoints.tensor_names import is_ffn
from registry.errors import StepFailed
from registry.settings import settings
from tests import tiny
from tests.benchmarks.claims.families.family import WEIGHTS, Family, stored
from tests.benchmarks.harness import reports

Trains = Literal["ffn", "all"]
Documents = Mapping[str, Sequence[Document]]

# It is part of the cache keys: raise it when the same inputs give other weights.
VERSION = 1
END_OF_TEXT = "<|endoftext|>"
TOKENIZER = "tokenizer.json"
INITIAL_DEVIATION = 0.02
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
MAX_GRADIENT_NORM = 1.0
REPORT_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An architecture and its trainings. The random seed of a family replaces theirs."""

    name: str
    architecture: Architecture
    pretraining: Training
    expert_training: Training


SMALL = Plan(
    name="small-llama",
    architecture=Architecture(
        vocab_size=4096,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=32,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    ),
    pretraining=Training(tokens=1 << 20, learning_rate=3e-3, batch_size=8),
    expert_training=Training(tokens=1 << 16, learning_rate=1e-3, batch_size=8),
)
TINY = Plan(
    name="tiny-llama",
    architecture=replace(
        SMALL.architecture,
        vocab_size=272,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    ),
    pretraining=Training(tokens=4096, learning_rate=1e-2, batch_size=4),
    expert_training=Training(tokens=2048, learning_rate=1e-2, batch_size=4),
)


def family(
    blobs: LocalBlobs,
    *,
    seed: int,
    parallel_block: bool = False,
    trains: Trains = "ffn",
    domains: Sequence[Domain] = EXPERT_DOMAINS + FURTHER_DOMAINS,
) -> Family:
    """Train a seed and an expert of each domain, or load them from the cache.

    `seed` determines the initial weights and the order of the text. `trains` names the trained part
    of an expert. Raises Unavailable when texts cannot be downloaded.
    """
    texts = fetch(
        [*domains, *PROJECTION_DOMAINS], limit=DOCUMENTS_PER_DOMAIN, on_progress=reports.say
    )
    read = {name: parse([path.read_bytes()]) for name, path in texts.items()}
    return trained(
        SMALL,
        blobs,
        documents={domain.name: read[domain.name] for domain in domains},
        public={domain.name: read[domain.name] for domain in PROJECTION_DOMAINS},
        seed=seed,
        parallel_block=parallel_block,
        trains=trains,
    )


def tiny_family(
    blobs: LocalBlobs, *, seed: int, parallel_block: bool = False, trains: Trains = "ffn"
) -> Family:
    """Train a tiny family on a few short texts in seconds, for tests."""
    return trained(
        TINY,
        blobs,
        documents={f"expert-{i}": tiny.sample_documents(expert=i) for i in range(1, 4)},
        public={f"public-{i}": tiny.sample_documents(expert=i) for i in range(5, 8)},
        seed=seed,
        parallel_block=parallel_block,
        trains=trains,
    )


def trained(
    plan: Plan,
    blobs: LocalBlobs,
    *,
    documents: Documents,
    public: Documents,
    seed: int,
    parallel_block: bool,
    trains: Trains,
) -> Family:
    """Train a family by a plan: the seed on `public`, an expert on each domain of `documents`."""
    maker = _Maker(plan, public, seed=seed, parallel_block=parallel_block)
    seed_folder = maker.seed()
    experts = {
        domain: maker.expert(seed_folder, domain, texts, trains=trains)
        for domain, texts in documents.items()
    }
    block = "parallel" if parallel_block else "sequential"
    return Family(
        name=f"{plan.name}-{seed}-{block}-{trains}",
        seed=stored(seed_folder, blobs),
        experts={domain: stored(folder, blobs) for domain, folder in experts.items()},
        documents=documents,
        public=public,
    )


class _Maker:
    """Makes folders in the cache; the name of each is a digest of its inputs."""

    def __init__(self, plan: Plan, public: Documents, *, seed: int, parallel_block: bool) -> None:
        self._public = public
        self._cache = settings().cache_path / "benchmarks" / plan.name
        self._architecture = replace(plan.architecture, parallel_block=parallel_block)
        self._pretraining, self._expert_training = (
            training.model_copy(update={"seed": seed})
            for training in (plan.pretraining, plan.expert_training)
        )

    def seed(self) -> Path:
        """Train the seed from scratch, on the training documents of all domains in turn."""
        training, config = self._pretraining, self._config()
        tokenizer = self._tokenizer()
        key = [VERSION, config, _file_digest(tokenizer), _digest(self._public), _fields(training)]

        def make(target: Path) -> None:
            network = _initial(self._architecture, seed=training.seed)
            reader = TokenReader(Tokenizer.from_file(str(tokenizer)), config=config)
            train(network, _windows(reader, self._public.values(), training), training, "the seed")
            _save(target, network, config=config, tokenizer=tokenizer)

        return made_once(self._cache / "seeds" / json_digest(key)[:32], make)

    def expert(self, seed: Path, domain: str, texts: Sequence[Document], *, trains: Trains) -> Path:
        """Train an expert from the folder of the seed, on the texts of its domain."""
        training, weights = self._expert_training, seed / WEIGHTS
        key = [VERSION, _file_digest(weights), _digest({domain: texts}), _fields(training), trains]

        def make(target: Path) -> None:
            config, tokenizer = json.loads((seed / "config.json").read_text()), seed / TOKENIZER
            network = Network(self._architecture)
            network.load_state_dict(load_file(weights))
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(trains == "all" or is_ffn(name))
            reader = TokenReader(Tokenizer.from_file(str(tokenizer)), config=config)
            train(network, _windows(reader, [texts], training), training, domain)
            _save(target, network, config=config, tokenizer=tokenizer)

        return made_once(self._cache / "experts" / json_digest(key)[:32], make)

    def _tokenizer(self) -> Path:
        """Train a byte-level BPE on the training documents of the public domains."""
        vocab_size = self._architecture.vocab_size
        key = json_digest([VERSION, _digest(self._public), vocab_size])

        def make(target: Path) -> None:
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=vocab_size,
                special_tokens=[END_OF_TEXT],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            )
            documents = itertools.chain.from_iterable(self._public.values())
            texts = (document.text for document in documents if document.split == "train")
            tokenizer.train_from_iterator(texts, trainer)
            tokenizer.save(str(target / TOKENIZER))

        return made_once(self._cache / "tokenizers" / key[:32], make) / TOKENIZER

    def _config(self) -> dict[str, Any]:
        # The only special token of the tokenizer has id 0.
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        return self._architecture.to_config() | ends | {"dtype": "bfloat16"}


def train(network: Network, windows: Sequence[Tensor], training: Training, name: str) -> None:
    """Train in place the parameters that require gradients, with AdamW in float32.

    Matrix products use the fastest data type. Each tensor [n, T] of `windows` is of one domain;
    batches draw from the domains in turn. Messages on progress contain `name`. Raises StepFailed
    when the loss is not finite.
    """
    batches = DomainBatches(windows, batch_size=training.batch_size, entropy=[training.seed])
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": parameters, "initial_lr": training.learning_rate}],
        betas=BETAS,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    clock = Clock(training, 0)
    for step in range(training.num_steps):
        set_learning_rates(optimizer, learning_rate_factor(training, step))
        tokens_BT = batches.batch(step).tokens
        with torch.autocast(network.device.type, torch.bfloat16, enabled=fastest() == "bfloat16"):
            logits_BTV = network(tokens_BT)[:, :-1]
            loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), tokens_BT[:, 1:].flatten())
        if not loss.isfinite():
            raise StepFailed(f"{name}: the loss is {loss.item()} in step {step + 1}")
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % REPORT_STEPS == 0 or step + 1 == training.num_steps:
            progress = clock.progress(step + 1, loss.item())
            reports.say(
                f"{name}: step {progress.step} of {progress.num_steps}, loss {progress.loss:.2f}, "
                f"{progress.tokens_per_second:.0f} tokens/s, {progress.eta_seconds:.0f} s left"
            )


def _initial(architecture: Architecture, *, seed: int) -> Network:
    """Initialize a network as GPT-2: more layers mean smaller weights into the residual stream.

    A parallel block starts from the same numbers as a sequential one. Biases start at zero, and
    norms as the identity.
    """
    network = Network(architecture)
    # Gemma's norms multiply by one more than their weight.
    unit = 0.0 if architecture.base_model_type.startswith("gemma") else 1.0
    generator = torch.Generator().manual_seed(seed)
    scaled = INITIAL_DEVIATION / math.sqrt(2 * architecture.num_hidden_layers)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2:
            is_output = name.endswith(("o_proj.weight", "down_proj.weight"))
            deviation = scaled if is_output else INITIAL_DEVIATION
            torch.nn.init.normal_(parameter, std=deviation, generator=generator)
        else:
            torch.nn.init.constant_(parameter, unit if "norm" in name else 0.0)
    return network


def _windows(
    reader: TokenReader, domains: Iterable[Sequence[Document]], training: Training
) -> list[Tensor]:
    length = training.sequence_length
    return [reader.windows(texts, split="train", length=length) for texts in domains]


def _save(target: Path, network: Network, *, config: dict[str, Any], tokenizer: Path) -> None:
    """Write a Hugging Face folder in bfloat16. Untrained bfloat16 weights keep their bits."""
    state = {name: tensor.bfloat16() for name, tensor in network.state_dict().items()}
    save_file(state, target / WEIGHTS, metadata={"format": "pt"})
    shutil.copy(tokenizer, target / TOKENIZER)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "model_max_length": network.architecture.max_position_embeddings,
    }
    for name, content in {"config.json": config, "tokenizer_config.json": tokenizer_config}.items():
        (target / name).write_text(json.dumps(content, indent=2) + "\n")


def _fields(training: Training) -> dict[str, Any]:
    return training.model_dump(mode="json")


def _digest(documents: Documents) -> str:
    content = b"".join(serialize(texts) for texts in documents.values())
    return hashlib.sha256(content).hexdigest()


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
