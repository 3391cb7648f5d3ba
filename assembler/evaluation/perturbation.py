"""Perturb a network as other kernels would: change every input of its layers a little.

Another order of sums changes the last digits of a number. Rounding to int8 or to bfloat16 turns
that into a whole step for numbers between two steps. So another engine differs from such a network
by more than other batches and threads show. Each perturbation is one random draw of that
difference.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from assembler.network import network_runner
from assembler.network.model import Network
from engine.divergence.metrics import Continuation, Reading

# Relative size of a perturbation: the effect of the order of sums in float32, and of rounding in
# bfloat16.
RELATIVE = {torch.float32: 1e-6, torch.bfloat16: 2**-8}
NUM_DRAWS = 3


def readings(network: Network, texts: Sequence[Continuation]) -> dict[str, list[Reading]]:
    """Read texts under each of `NUM_DRAWS` perturbations, for a noise floor.

    See `engine.divergence.noise`.
    """
    by_draw = {}
    for seed in range(NUM_DRAWS):
        with perturbed(network, seed=seed):
            by_draw[f"perturbed, {seed}"] = network_runner.runner(network).read(texts)
    return by_draw


def in_bfloat16(network: Network, texts: Sequence[Continuation]) -> dict[str, list[Reading]]:
    """Read texts by a bfloat16 network, unchanged and under each perturbation.

    This is the noise floor of a model that is served in bfloat16, on texts written in float32.
    """
    by_draw = {"as it is": network_runner.runner(network).read(texts), **readings(network, texts)}
    return {f"in bfloat16, {name}": drawn for name, drawn in by_draw.items()}


@contextmanager
def perturbed(network: Network, *, seed: int) -> Iterator[None]:
    """Change each number of the embeddings by about its `RELATIVE` share inside the `with` block.

    The embeddings must have one of the dtypes of `RELATIVE`.
    """
    weight = network.model.embed_tokens.weight
    before = weight.data
    noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(seed))
    moved = before.float() * (1 + RELATIVE[before.dtype] * noise)
    weight.data = moved.to(before)
    try:
        yield
    finally:
        weight.data = before
