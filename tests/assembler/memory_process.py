"""Run training steps in one process and measure what it holds in memory; see `test_rank_memory`.

The argument is a JSON list of cases, each an object with `recipe`, `degree` and
`experts_per_token`. For each case the first process prints the bytes of every part, in the process
that holds most of it.
"""

import json
import sys
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from assembler.network.model import Network
from assembler.recipes.recipe import Finetune
from assembler.training.batches import Batch
from assembler.training.distributed import (
    World,
    is_first_process,
    local_shard,
    process_group,
    shard_network,
)
from assembler.training.optimizer import DTYPES
from assembler.training.train_step import take_step
from assembler.training.trainable import trains
from tests.assembler.networks import NEXUS

# All widths differ, and the head is small. An odd number of rows is divided unevenly.
ARCHITECTURE = replace(
    NEXUS,
    vocab_size=63,
    hidden_size=96,
    intermediate_size=168,
    num_hidden_layers=3,
    num_experts=4,
    expert_names=("a", "b", "c", "d"),
    domain_embedding_size=17,
    max_position_embeddings=2048,
)


def measure(cases: list[dict[str, Any]]) -> list[dict[str, int]]:
    with process_group() as world:
        return [_measure_case(case, world) for case in cases]


def _measure_case(case: dict[str, Any], world: World) -> dict[str, int]:
    recipe = Finetune.model_validate(case["recipe"])
    architecture = replace(ARCHITECTURE, num_experts_per_tok=case["experts_per_token"])
    network = shard_network(
        _network(architecture, recipe),
        world,
        prepare=_to_float32,
        dtype=DTYPES[recipe.dtype],
        expert_parallel_degree=case["degree"],
    )
    return _maximum_over_processes(_step(network, recipe, world), world)


def _network(architecture: Any, recipe: Finetune) -> Network:
    torch.manual_seed(0)
    network = Network(architecture).to(DTYPES[recipe.dtype])
    for name, parameter in network.named_parameters():
        nn.init.normal_(parameter, std=0.02)
        parameter.requires_grad_(trains(name, architecture, recipe.train))
    shape = network.model.domain_embeddings.shape
    network.model.domain_embeddings = torch.randn(shape)
    return network


def _to_float32(module: nn.Module, prefix: str) -> None:
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _step(network: Network, recipe: Finetune, world: World) -> dict[str, int]:
    parameters = list(network.parameters())
    held = {
        "frozen_weights": _bytes(p for p in parameters if not p.requires_grad)
        + _bytes(network.buffers()),
        "trained_weights": _bytes(p for p in parameters if p.requires_grad),
    }
    optimizer = torch.optim.AdamW([p for p in parameters if p.requires_grad], fused=True)

    def record(*_: object) -> None:
        held["gradients"] = _bytes(p.grad for p in parameters if p.grad is not None)

    optimizer.register_step_pre_hook(record)
    shape = (recipe.batch_size, recipe.sequence_length)
    tokens = torch.randint(ARCHITECTURE.vocab_size, shape)
    labels = torch.arange(recipe.batch_size) % ARCHITECTURE.num_experts
    full_batch = Batch(tokens=tokens, labels=labels, weights=torch.ones(recipe.batch_size))
    batch = full_batch.shard(world.rank, num_shards=world.size, device=world.device)
    saved: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        # With many processes these are the gathered weights while a block is computed.
        parameter_storages = {
            local_shard(p).untyped_storage().data_ptr() for p in network.parameters()
        }
        storage = x.untyped_storage()
        if storage.data_ptr() not in parameter_storages:
            saved[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        take_step(batch, network=network, optimizer=optimizer, recipe=recipe, world=world)
    states = [s for state in optimizer.state.values() for n, s in state.items() if n != "step"]
    return held | {"moments": _bytes(states), "activations": sum(saved.values())}


def _bytes(tensors: Any) -> int:
    return sum(local_shard(t).numel() * t.element_size() for t in tensors)


def _maximum_over_processes(held: dict[str, int], world: World) -> dict[str, int]:
    counts = torch.tensor(list(held.values()))
    if world.size > 1:
        dist.all_reduce(counts, dist.ReduceOp.MAX)
    return dict(zip(held, counts.tolist(), strict=True))


if __name__ == "__main__":
    result = measure(json.loads(sys.argv[1]))
    if is_first_process():
        sys.stdout.write(json.dumps(result))
