"""One process or many: the group that torchrun started, and the network spread over it.

All but the routed experts is sliced over all processes (FSDP2). The experts are too, or, with
expert parallelism, dealt out within groups of `expert_parallel_degree` processes and sliced between
those groups. Two meshes over the same processes:

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

# Called with a part of the network and the prefix of its parameters' names.
Prepare = Callable[[nn.Module, str], None]


@dataclass(frozen=True)
class World:
    """This process among its fellows, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def sum(self, x: Tensor) -> Tensor:
        """`x` added up over all processes, the same on each."""
        if self.size == 1:
            return x
        total = x.clone()
        dist.all_reduce(total)
        return total

    def mean(self, x: Tensor) -> Tensor:
        return self.sum(x) / self.size


@contextmanager
def process_group() -> Iterator[World]:
    """The processes of a torchrun or of Ray Train; alone, without any group, outside of both."""
    rank, size = _rank(), int(os.environ.get("WORLD_SIZE", 1))
    device = _device()
    if size == 1:
        yield World(rank=0, size=1, device=device)
        return
    if dist.is_initialized():
        # By Ray Train, which ends it too.
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
        # Gloo's threads let go of what they have sent once they hold the GIL, which they get while
        # this one waits. FSDP keeps the groups, so that nothing ends these threads, and one that
        # asks for the GIL of an interpreter that ends aborts it (pytorch/pytorch issue 190489).
        dist.barrier()
    finally:
        dist.destroy_process_group()


def is_first_process() -> bool:
    """The one that writes what all have made; inside of a group and after it."""
    return _rank() == 0


def shard_network(
    network: Network,
    world: World,
    *,
    prepare: Prepare | None = None,
    dtype: torch.dtype | None = None,
    expert_parallel_degree: int = 1,
) -> Network:
    """Move the network to its device; among many, each keeps a slice of it, or some of its experts.

    `prepare` makes of each part what is to be spread, right before it is: so no process ever holds
    more than one block as a whole. Blocks are gathered in `dtype`, in which their products are
    computed: what autocast makes of float32 weights it keeps until the backward pass, of all
    blocks. Without, they are gathered as they are. The degree divides processes and routed experts.
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
        prefix = f"model.layers.{number}"
        if groups is not None and isinstance(block.mlp, MoE):
            block.mlp.experts = DispatchedExperts(block.mlp.experts, groups.get_group("ep"))
            prepare(block.mlp.experts, f"{prefix}.mlp.experts")
            _spread_experts(block.mlp.experts, groups["efsdp"], world, policy)
        prepare(block, prefix)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    prepare(network, "")
    fully_shard(network, mesh=mesh)
    return network


def reshard(network: Network) -> None:
    """Behind a forward pass that no backward pass follows: the outermost part stays gathered."""
    if isinstance(network, FSDPModule):
        network.reshard()


def _spread_experts(
    experts: DispatchedExperts, mesh: DeviceMesh, world: World, policy: MixedPrecisionPolicy
) -> None:
    sharded = fully_shard(experts, mesh=mesh, mp_policy=policy)
    # An expert's gradient is of the tokens of its whole group already; a sum over the groups is
    # then one over all processes, and the loss is their mean.
    sharded.set_gradient_divide_factor(world.size)
    # Gloo knows no sum with a factor in it. A single group sums nothing, and torch 2.13 would then
    # divide twice.
    sharded.set_force_sum_reduction_for_comms(mesh.size() > 1)


def local(tensor: Tensor) -> Tensor:
    """What this process keeps of it; each number of a spread tensor is kept by one process."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(network: Network, world: World) -> Iterator[tuple[str, Tensor]]:
    """What trains, by name and whole, one after the other, to the first process alone.

    Every process must go through to the end. The tensors are float32, on the network's device.
    """
    own = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    if world.size == 1:
        yield from own.items()
        return
    names_by_rank: list[list[str]] = [[] for _ in range(world.size)]
    dist.all_gather_object(names_by_rank, list(own))
    keeper = {name: rank for rank in reversed(range(world.size)) for name in names_by_rank[rank]}
    for name, shape in network.architecture.tensor_shapes().items():
        if name not in keeper:
            continue
        whole = _whole(own[name]) if name in own else torch.empty(shape, device=world.device)
        if keeper[name] != 0 and world.rank == keeper[name]:
            dist.send(whole, dst=0)
        if keeper[name] != 0 and world.rank == 0:
            dist.recv(whole, src=keeper[name])
        if world.rank == 0:
            yield name, whole


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device
