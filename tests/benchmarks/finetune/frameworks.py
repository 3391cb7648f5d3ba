"""Training steps of our finetune and of transformers' Qwen2-MoE, with equal shapes.

Both train the same parts in float32, freeze the others, and compute products in one dtype, with the
same optimizer, clipping and load-balancing loss. Our router is trained through the projection, as
in a finetune; theirs has none. Theirs has the sigmoid gate of its shared expert instead, which
counts as part of the router here.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from assembler.compute_dtype import ComputingDtype
from assembler.network.model import Network
from assembler.recipes.recipe import Finetune, Trained
from assembler.training.batches import Batch
from assembler.training.distributed import World
from assembler.training.optimizer import DTYPES
from assembler.training.train_step import MAX_GRADIENT_NORM, take_step
from assembler.training.trainable import trains
from registry.checkpoints.architecture import Architecture

LOAD_BALANCE_WEIGHT = 0.01
# `batched_mm` copies a whole expert for every token, and is far too slow.
EXPERTS_IMPLEMENTATIONS = ("eager", "grouped_mm")
ATTENTION_IMPLEMENTATIONS = ("eager", "sdpa")
TRIALS = 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """The training step that is measured: shape, batch, trained parts, dtype, device."""

    architecture: Architecture
    batch: Batch
    train: Trained
    dtype: ComputingDtype
    device: torch.device


class Contender(Protocol):
    """An implementation that trains on one batch, step by step."""

    implementations: dict[str, str]

    @property
    def network(self) -> nn.Module: ...

    def step(self) -> float:
        """Train one step and return the loss before it."""


class Ours:
    """The step of our finetune."""

    def __init__(self, case: Case) -> None:
        num_sequences, length = case.batch.tokens.shape
        self._recipe = Finetune(
            tokens=case.batch.tokens.numel(),
            batch_size=num_sequences,
            sequence_length=length,
            train=case.train,
            dtype=case.dtype,
            load_balance_weight=LOAD_BALANCE_WEIGHT,
            domain_loss_q=1.0,
        )
        torch.manual_seed(0)
        self.network = Network(case.architecture).to(case.device)
        self._batch = case.batch.shard(0, num_shards=1, device=case.device)
        self._world = World(rank=0, size=1, device=case.device)
        self.implementations = dict[str, str]()
        torch.nn.init.normal_(self.network.model.domain_embeddings)
        _prepare(
            self.network,
            lambda name: trains(name, case.architecture, case.train),
            DTYPES[case.dtype],
        )
        self._optimizer = _optimizer(self.network)

    def step(self) -> float:
        return take_step(
            self._batch,
            network=self.network,
            optimizer=self._optimizer,
            recipe=self._recipe,
            world=self._world,
        ).loss


class Theirs:
    """The step of Qwen2-MoE, with the fastest of its implementations."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        with case.device:
            self.network = Qwen2MoeForCausalLM(_config(case.architecture))  # type: ignore[no-untyped-call]  # transformers has no annotations here
        self._tokens, self._dtype = case.batch.tokens.to(case.device), DTYPES[case.dtype]
        trains_all = case.train == "all"
        _prepare(self.network, lambda name: trains_all or "gate.weight" in name, self._dtype)
        self._optimizer = _optimizer(self.network)
        self.implementations = self._use_fastest()

    def step(self) -> float:
        in_bfloat16 = self._dtype == torch.bfloat16
        with torch.autocast(self._tokens.device.type, torch.bfloat16, enabled=in_bfloat16):
            loss: Tensor = self.network(input_ids=self._tokens, labels=self._tokens).loss
        value = loss.item()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return value

    def _use_fastest(self) -> dict[str, str]:
        pairs = list(product(EXPERTS_IMPLEMENTATIONS, ATTENTION_IMPLEMENTATIONS))
        seconds = dict.fromkeys(pairs, math.inf)
        # Each is tried several times, since the first one runs with memory never used before.
        for pair in TRIALS * pairs:
            self._use(*pair)
            seconds[pair] = min(seconds[pair], self._step_seconds())
        experts, attention = min(seconds, key=seconds.__getitem__)
        self._use(experts, attention)
        return {"experts": experts, "attention": attention}

    def _step_seconds(self) -> float:
        self.step()
        started_at = time.perf_counter()
        self.step()
        return time.perf_counter() - started_at

    def _use(self, experts: str, attention: str) -> None:
        self.network.set_experts_implementation(experts)
        self.network.set_attn_implementation(attention)


def _config(a: Architecture) -> Qwen2MoeConfig:
    return Qwen2MoeConfig(
        vocab_size=a.vocab_size,
        hidden_size=a.hidden_size,
        moe_intermediate_size=a.intermediate_size,
        shared_expert_intermediate_size=a.intermediate_size,
        num_hidden_layers=a.num_hidden_layers,
        num_attention_heads=a.num_attention_heads,
        num_key_value_heads=a.num_key_value_heads,
        num_experts=a.num_experts,
        num_experts_per_tok=a.num_experts_per_tok,
        norm_topk_prob=a.norm_topk_prob,
        qkv_bias=False,
        tie_word_embeddings=a.tie_word_embeddings,
        max_position_embeddings=a.max_position_embeddings,
        output_router_logits=True,
        router_aux_loss_coef=LOAD_BALANCE_WEIGHT,
        use_cache=False,
    )


def _prepare(network: nn.Module, trained: Callable[[str], bool], dtype: torch.dtype) -> None:
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.02)
        if not trained(name):
            parameter.requires_grad_(False)
            parameter.data = parameter.data.to(dtype)


def _optimizer(network: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in network.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
