"""Train a dense expert: a seed and one domain's documents in, an expert's folder out.

By default only the FFNs are trained, because they become the routed experts. Experts thus share
every other tensor with their seed, and averaging those in a mix changes nothing.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor

from assembler import tokenizer_file
from assembler.compute_dtype import fastest
from assembler.content_cache import made_once
from assembler.network.model import Network
from assembler.network.network_runner import log_perplexity
from assembler.recipes.recipe import Training
from assembler.training import lora
from assembler.training.batches import DomainBatches, TokenReader, sample_windows
from assembler.training.checkpoints import Checkpoints
from assembler.training.distributed import process_group, shard_network
from assembler.training.optimizer import (
    DTYPES,
    Clock,
    OnStep,
    learning_rate_factor,
    optimizer_of,
    set_learning_rates,
)
from registry.catalog.documents import check_expert_documents, parse
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.file_names import CONFIG, TENSORS, TOKENIZER
from registry.checkpoints.manifests import json_digest
from registry.checkpoints.tensor_names import is_ffn
from registry.errors import InvalidInput, StepFailed
from registry.ingest.checkpoint_folder import small_files
from registry.ingest.shards import weight_files
from registry.settings import settings

CHECKPOINT_STEPS = 10
MAX_GRADIENT_NORM = 1.0
EVALUATED_TOKENS = 2048
# Part of the cache key: raise it when the same inputs would give another expert.
VERSION = 1


# Which parameters are trained: those of the FFNs, all, or low-rank updates of the FFNs.
Part = Literal["ffn", "all", "lora"]
# The default learning rate of each part (docs, training an expert).
LEARNING_RATES: Mapping[Part, float] = {"ffn": 5e-4, "all": 2e-4, "lora": 2e-3}


class ExpertTraining(Training):
    """The settings of an expert's training from its seed."""

    tokens: int = Field(default=16_384, ge=1, le=10**12)
    learning_rate: float = Field(default=LEARNING_RATES["ffn"], gt=0, le=1)
    # Excluded at its default, so that cached experts keep their keys.
    train: Part = Field(default="ffn", exclude_if=lambda part: part == "ffn")

    @model_validator(mode="before")
    @classmethod
    def _with_rate(cls, fields: dict[str, Any]) -> dict[str, Any]:
        """Fill in the learning rate of the part that is trained."""
        rate = LEARNING_RATES.get(fields.get("train", "ffn"))
        return fields if rate is None else {"learning_rate": rate} | fields


def expert_folder(seed: Path, documents: Path, *, training: ExpertTraining) -> Path:
    """Return the cache folder of the expert of exactly these inputs, made or not."""
    digests = [_digest(file) for file in (*weight_files(seed), documents)]
    key = json_digest([VERSION, digests, training.model_dump(mode="json"), *_reader(seed).start])
    return settings().cache_path / "experts" / key[:32]


def train_expert(
    seed: Path, documents: Path, *, training: ExpertTraining, on_progress: OnStep
) -> Path:
    """Train an expert, or find it in the cache; return its Hugging Face folder.

    `seed` is a Hugging Face folder with one or more safetensors; `documents` is a JSON Lines file
    with splits. The result is a checkpoint with the seed's other files, or, of `lora`, an adapter
    as peft saves it. Beside it are the documents, and `metrics.json` with held-out perplexities
    before and after. An interrupted run continues from its last checkpoint.
    Raises InvalidInput for documents that cannot train an expert, and StepFailed when the loss is
    not finite.
    """
    folder = expert_folder(seed, documents, training=training)
    checkpoint_path = folder.with_name(f"{folder.name}.checkpoints")

    def make(target: Path) -> None:
        run = _Run(seed, documents, training)
        metrics = run.train(checkpoint_path, on_progress)
        run.write(target)
        shutil.copy(documents, target / "documents.jsonl")
        (target / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")

    made_once(folder, make)
    shutil.rmtree(checkpoint_path, ignore_errors=True)
    return folder


class _Run:
    """The network in training: what is trained in float32, the rest frozen in the fastest dtype."""

    def __init__(self, seed: Path, documents: Path, training: ExpertTraining) -> None:
        config = json.loads((seed / CONFIG).read_text())
        parsed_documents = parse([documents.read_bytes()])
        check_expert_documents(parsed_documents)
        reader = _reader(seed)
        length = training.sequence_length
        self._seed, self._training = seed, training
        self._windows = reader.windows(parsed_documents, split="train", length=length)
        held_out = reader.windows(parsed_documents, split="held-out", length=length)
        if len(held_out) == 0:
            raise InvalidInput(f"the held-out documents do not fill one sequence of {length}")
        self._held_out = sample_windows(held_out, count=max(1, EVALUATED_TOKENS // length))
        self._batches = DomainBatches(
            [self._windows], batch_size=training.batch_size, entropy=[training.seed]
        )
        self._stored = {
            name: tensor for path in weight_files(seed) for name, tensor in load_file(path).items()
        }
        self._network = _network(config, self._stored, training)

    def train(self, checkpoint_path: Path, on_progress: OnStep) -> dict[str, Any]:
        """Train the chosen part and return the metrics."""
        training = self._training
        seed_perplexity = self._perplexity()
        with process_group() as world:
            network = shard_network(self._network, world)
            parameters = [p for p in network.parameters() if p.requires_grad]
            optimizer = optimizer_of((p, training.learning_rate) for p in parameters)
            checkpoints = Checkpoints(
                checkpoint_path, network=network, optimizer=optimizer, world=world
            )
            first_step = checkpoints.resume()
            clock = Clock(training, first_step)
            for step in range(first_step, training.num_steps):
                set_learning_rates(optimizer, learning_rate_factor(training, step))
                batch = self._batches.batch(step).shard(
                    world.rank, num_shards=world.size, device=world.device
                )
                loss = _step(network, optimizer, parameters, batch.tokens)
                if not math.isfinite(loss):
                    raise StepFailed(f"the loss is {loss} in step {step + 1}")
                on_progress(clock.progress(step + 1, loss))
                # No checkpoint after the last step: the expert itself is written next.
                if (step + 1) % CHECKPOINT_STEPS == 0 and step + 1 < training.num_steps:
                    checkpoints.save(step + 1)
        return {
            "training": training.model_dump(mode="json"),
            "training_tokens_available": self._windows.numel(),
            "held_out_tokens": self._held_out.numel(),
            "seed_perplexity": seed_perplexity,
            "expert_perplexity": self._perplexity(),
        }

    def write(self, target: Path) -> None:
        """Write the expert's checkpoint, or its adapter."""
        if self._training.train == "lora":
            lora.write(self._network, target)
            return
        for file in (self._seed / CONFIG, *small_files(self._seed)):
            shutil.copy(file, target)
        save_file(self._weights(), target / TENSORS, metadata={"format": "pt"})

    def _weights(self) -> dict[str, Tensor]:
        """Return the expert's tensors; all that were not trained are exactly the seed's."""
        trained = {n: p.detach() for n, p in self._network.named_parameters() if p.requires_grad}
        return {
            name: trained[name].to(tensor.dtype).contiguous() if name in trained else tensor
            for name, tensor in self._stored.items()
        }

    def _perplexity(self) -> float:
        with _autocast(self._network):
            return math.exp(log_perplexity(self._network, self._held_out))


def _network(
    config: dict[str, Any], stored: dict[str, Tensor], training: ExpertTraining
) -> Network:
    """Return the seed's network; what is trained is in float32."""
    with torch.device("meta"):
        network = Network(Architecture.from_config(config))
    trained = {name for name in stored if _trains(name, training.train)}
    dtypes = {name: torch.float32 if name in trained else DTYPES[fastest()] for name in stored}
    network.load_state_dict(
        {name: tensor.to(dtypes[name], copy=True) for name, tensor in stored.items()}, assign=True
    )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    if training.train == "lora":
        lora.adapt(network, seed=training.seed)
    return network


def _trains(name: str, part: Part) -> bool:
    """Tell whether a tensor of the seed is trained itself."""
    return part == "all" or (part == "ffn" and is_ffn(name))


def _autocast(network: Network) -> torch.autocast:
    """Return the autocast context of the network's device, enabled when bfloat16 is fastest."""
    uses_bfloat16 = fastest() == "bfloat16"
    return torch.autocast(network.device.type, torch.bfloat16, enabled=uses_bfloat16)


def _step(
    network: Network,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[Tensor],
    tokens_BT: Tensor,
) -> float:
    """Take one step on a batch [B, T], unless its loss is not finite; return that loss."""
    with _autocast(network):
        logits_BTV = network(tokens_BT)
        loss = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1).float(), tokens_BT[:, 1:].flatten())
    value = loss.item()
    if math.isfinite(value):
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
    return value


def _reader(seed: Path) -> TokenReader:
    config = json.loads((seed / CONFIG).read_text())
    return TokenReader(tokenizer_file.read((seed / TOKENIZER).read_bytes()), config=config)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
