"""Run `engine.vllm_plugin.api_server` with a fault in its code.

`python -m tests.benchmarks.faults.served FAULT ARGUMENTS`. The server is forked from the process
that is changed here, so it has the fault too.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from vllm.model_executor.layers.fused_moe import FusedMoEFactory

from engine.vllm_plugin import api_server, moe, router, tensors

SWAPPED = {0: 1, 1: 0}


def bfloat16_router() -> None:
    """Round inputs and logits of routers to bfloat16; the rows are stored in bfloat16 anyway."""
    original = router.Router.logits

    def logits(self: router.Router, x_TD: Tensor) -> Tensor:
        return original(self, x_TD.bfloat16().to(x_TD.dtype)).bfloat16().to(x_TD.dtype)

    _put(router.Router, "logits", logits)


def surer_router() -> None:
    """Double the logits of all routers, as another temperature of their softmax does."""
    original = router.Router.logits

    def logits(self: router.Router, x_TD: Tensor) -> Tensor:
        return 2 * original(self, x_TD)

    _put(router.Router, "logits", logits)


def renormalized() -> None:
    def renormalizing(**fields: Any) -> Any:
        return FusedMoEFactory(**(fields | {"renormalize": True}))

    _put(moe, "FusedMoEFactory", renormalizing)


def dropped_shared_expert() -> None:
    def forward(self: moe.MoE, x_TD: Tensor) -> Tensor:
        y_TD: Tensor = self.experts(hidden_states=x_TD, router_logits=self.gate.logits(x_TD))
        return y_TD

    _put(moe.MoE, "forward", forward)


def swapped_experts() -> None:
    """Swap two experts of the first block while loading."""

    def renamed(name: str) -> str:
        prefix, part, rest = name.partition(".layers.0.mlp.experts.")
        if not part:
            return name
        number, _, rest = rest.partition(".")
        return f"{prefix}{part}{SWAPPED.get(int(number), number)}.{rest}"

    _change_weights(lambda name, tensor: (renamed(name), tensor))


def half_loaded() -> None:
    """Set the second half of every expert's output matrix in the first block to zero."""

    def halved(name: str, tensor: Tensor) -> tuple[str, Tensor]:
        if ".layers.0.mlp.experts." in name and name.endswith("down_proj.weight"):
            tensor = tensor.clone()
            tensor[len(tensor) // 2 :] = 0
        return name, tensor

    _change_weights(halved)


def one_nan() -> None:
    """Put NaN into the FFN of every expert of the first block."""

    def poisoned(name: str, tensor: Tensor) -> tuple[str, Tensor]:
        if ".layers.0.mlp.experts." in name and name.endswith("up_proj.weight"):
            tensor = tensor.clone()
            tensor.view(-1)[0] = torch.nan
        return name, tensor

    _change_weights(poisoned)


FAULTS: dict[str, Callable[[], None]] = {
    "bf16 router, served": bfloat16_router,
    "routers twice as sure, served": surer_router,
    "top-k renormalized, served": renormalized,
    "dropped shared expert, served": dropped_shared_expert,
    "experts swapped, served": swapped_experts,
    "half-loaded shard, served": half_loaded,
    "one NaN, served": one_nan,
}


def _change_weights(change: Callable[[str, Tensor], tuple[str, Tensor]]) -> None:
    load = tensors.load

    def changed(*arguments: Any) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in load(*arguments):
            yield change(name, tensor)

    _put(tensors, "load", changed)


def _put(owner: object, name: str, value: object) -> None:
    """Replace an attribute as long as the server runs."""
    mock.patch.object(owner, name, value).start()


if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)]()
    api_server.main()
