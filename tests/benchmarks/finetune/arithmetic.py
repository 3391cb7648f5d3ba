"""Count the matrix products of a training step, time them, and measure the bytes it keeps.

Letters: T tokens of the batch, D hidden, F FFN inner, V vocabulary, N experts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assembler.recipes.recipe import Trained
from registry.checkpoints.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Product:
    """A number of matrix products: `times` batches of [rows, inner] with [inner, columns]."""

    rows: int
    inner: int
    columns: int
    times: int
    batch: int = 1

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inner * self.columns * self.times * self.batch

    def seconds(self, dtype: torch.dtype, device: torch.device) -> float:
        """Return the time of all products, estimated from a few."""
        a = torch.randn(self.batch, self.rows, self.inner, dtype=dtype, device=device)
        b = torch.randn(self.batch, self.columns, self.inner, dtype=dtype, device=device).mT
        if self.batch == 1:
            a, b = a[0], b[0]
        runs = 4
        a @ b
        wait_for(device)
        started_at = time.perf_counter()
        for _ in range(runs):
            a @ b
        wait_for(device)
        return (time.perf_counter() - started_at) / runs * self.times


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished, since a GPU computes asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def products(a: Architecture, *, num_sequences: int, length: int, train: Trained) -> list[Product]:
    """Return the products that a step must compute, with tokens spread evenly over the experts.

    In the backward pass a product needs one more product for the gradient of its input, if anything
    before it trains, and one for the gradient of its weight, if it trains. With `router`, nothing
    before the first block's router trains, and in that block only the router.
    """
    num_tokens, blocks = num_sequences * length, a.num_hidden_layers
    per_expert = num_tokens * a.num_experts_per_tok // a.num_experts
    trains_all = train == "all"
    # The forward pass, and the gradients of inputs and weights.
    passes = 3 * blocks if trains_all else 2 * blocks - 1
    heads, groups = (n * a.head_dim for n in (a.num_attention_heads, a.num_key_value_heads))
    hidden, inner = a.hidden_size, a.intermediate_size

    def product(rows: int, inner: int, columns: int, times: int) -> Product:
        return Product(rows=rows, inner=inner, columns=columns, times=times)

    return [
        product(num_tokens, hidden, heads, 2 * passes),
        product(num_tokens, hidden, groups, 2 * passes),
        # Attention scores and weighted values; each has two gradients. Half of the scores are used.
        Product(
            rows=length,
            inner=a.head_dim,
            columns=length // 2,
            times=2 * (3 * blocks if trains_all else 3 * blocks - 2),
            batch=num_sequences * a.num_attention_heads,
        ),
        product(num_tokens, hidden, inner, 3 * passes),
        product(per_expert, hidden, inner, 3 * a.num_experts * passes),
        product(num_tokens, hidden, a.vocab_size, 3 if trains_all else 2),
    ]


def bytes_held(step: Callable[[], object], network: nn.Module) -> int:
    """Return the bytes kept from the forward to the backward pass, without parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    held: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in parameters:
            held[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        step()
    return sum(held.values())
