"""Shard the network over one process or many, in the process group that torchrun started.

All tensors but the routed experts are sharded over all processes (FSDP2). The experts are too, or,
with expert parallelism, distributed within groups of `expert_parallel_degree` processes and sharded
between those groups. Two meshes cover the same processes:

    fsdp            [processes]                                 everything else
    efsdp x ep      [processes / degree, degree]                routed experts
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from assembler.network.model import Network
from assembler.network.moe import MoE
from assembler.training.expert_parallel import DispatchedExperts
from assembler.training.parallelism import INIT_METHOD
from registry.checkpoints import tensor_names

# Called with a part of the network and the prefix of its parameters' names.
Prepare = Callable[[nn.Module, str], None]


@dataclass(frozen=True)
class World:
    """This process's rank, the number of processes, and the device this process computes on."""

    rank: int
    size: int
    device: torch.device

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of `x` over all processes, equal on each."""
        if self.size == 1:
            return x
        total = x.clone()
        dist.all_reduce(total)
        return total

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of `x` over all processes, equal on each."""
        return self.sum(x) / self.size


@contextmanager
def process_group() -> Iterator[World]:
    """Join the process group of torchrun or Ray Train; alone, yield a world of one."""
    rank, size = _rank(), int(os.environ.get("WORLD_SIZE", 1))
    device = _device()
    if size == 1:
        yield World(rank=0, size=1, device=device)
        return
    if dist.is_initialized():
        # Ray Train created the group and will destroy it.
        yield World(rank=dist.get_rank(), size=dist.get_world_size(), device=device)
        return
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=os.environ.get(INIT_METHOD),
        rank=rank,
        world_size=size,
    )
    try:
        yield World(rank=rank, size=size, device=device)
        # Gloo's threads release sent tensors once they hold the GIL, which they get while this
        # thread waits here. FSDP keeps references to the groups, so nothing ends these threads, and
        # a thread that requests the GIL of an interpreter that is shutting down aborts it
        # (pytorch/pytorch issue 190489).
        dist.barrier()
    finally:
        dist.destroy_process_group()


def is_first_process() -> bool:
    """Return whether this process writes the results; valid after the group has ended too."""
    return _rank() == 0


def shard_network(
    network: Network,
    world: World,
    *,
    prepare: Prepare | None = None,
    dtype: torch.dtype | None = None,
    expert_parallel_degree: int = 1,
) -> Network:
    """Move the network to its device; with many processes, keep a shard of it.

    `prepare` is called on each part right before it is sharded, so that no process ever holds more
    than one whole block. Blocks are gathered in `dtype`, the dtype of their products: autocast
    would keep its copies of float32 weights of all blocks until the backward pass. Without `dtype`
    they are gathered as they are. `expert_parallel_degree` must divide the number of processes and
    of routed experts.
    """
    prepare = prepare or (lambda part, prefix: None)
    if world.size == 1:
        prepare(network, "")
        return network.to(world.device)
    mesh = init_device_mesh(world.device.type, (world.size,), mesh_dim_names=("fsdp",))
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    groups = None
    if expert_parallel_degree > 1:
        groups = init_device_mesh(
            world.device.type,
            (world.size // expert_parallel_degree, expert_parallel_degree),
            mesh_dim_names=("efsdp", "ep"),
        )
    for number, block in enumerate(network.model.layers):
        if groups is not None and isinstance(block.mlp, MoE):
            block.mlp.experts = DispatchedExperts(block.mlp.experts, groups.get_group("ep"))
            prepare(block.mlp.experts, tensor_names.routed_experts(number))
            _shard_experts(block.mlp.experts, groups["efsdp"], world, policy)
        prepare(block, tensor_names.block(number))
        fully_shard(block, mesh=mesh, mp_policy=policy)
    prepare(network, "")
    fully_shard(network, mesh=mesh)
    return network


def reshard(network: Network) -> None:
    """Reshard the network after a forward pass without backward pass, as FSDP does not."""
    if isinstance(network, FSDPModule):
        network.reshard()


def _shard_experts(
    experts: DispatchedExperts, mesh: DeviceMesh, world: World, policy: MixedPrecisionPolicy
) -> None:
    """Shard this process's experts over the groups of expert parallelism."""
    sharded = fully_shard(experts, mesh=mesh, mp_policy=policy)
    # An expert's gradient already covers the tokens of its whole group. The sum over groups is then
    # a sum over all processes, and the loss is their mean.
    sharded.set_gradient_divide_factor(world.size)
    # Gloo has no sum with a factor. A single group sums nothing, and torch 2.13 would divide twice.
    sharded.set_force_sum_reduction_for_comms(mesh.size() > 1)


def local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor; each number is held by exactly one process."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gather_trained(network: Network, world: World) -> Iterator[tuple[str, Tensor]]:
    """Yield each trained tensor by name, whole, one after the other, to the first process only.

    Every process must iterate to the end. The tensors are float32, on the network's device.
    """
    trained = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    if world.size == 1:
        yield from trained.items()
        return
    names_by_rank: list[list[str]] = [[] for _ in range(world.size)]
    dist.all_gather_object(names_by_rank, list(trained))
    owner = {name: rank for rank in reversed(range(world.size)) for name in names_by_rank[rank]}
    for name, shape in network.architecture.tensor_shapes().items():
        if name not in owner:
            continue
        full_tensor = (
            _full_tensor(trained[name])
            if name in trained
            else torch.empty(shape, device=world.device)
        )
        if owner[name] != 0 and world.rank == owner[name]:
            dist.send(full_tensor, dst=0)
        if owner[name] != 0 and world.rank == 0:
            dist.recv(full_tensor, src=owner[name])
        if world.rank == 0:
            yield name, full_tensor


def _full_tensor(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device
