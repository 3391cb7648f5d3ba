"""One process or many: the group that torchrun started, and the network spread over it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from assembler.network import Network


@dataclass(frozen=True)
class World:
    """This process among its fellows, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def mean(self, x: Tensor) -> Tensor:
        """`x` averaged over all processes, the same on each."""
        if self.size == 1:
            return x
        total = x.clone()
        dist.all_reduce(total)
        return total / self.size


@contextmanager
def joined() -> Iterator[World]:
    """The processes of a torchrun, ended together; alone, without any group, outside of one."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = _device()
    if size == 1:
        yield World(rank=0, size=1, device=device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank=rank, size=size, device=device)
    finally:
        dist.destroy_process_group()


def spread(network: Network, world: World) -> Network:
    """Move the network to its device; among many, each keeps a slice of every block (FSDP2)."""
    network.to(world.device)
    if world.size > 1:
        mesh = init_device_mesh(world.device.type, (world.size,))
        for block in network.model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)
    return network


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device
