"""A network as other kernels would run it: every number that enters its layers a little off.

The order of sums moves a number by a few of its last digits, and of that rounding to int8, or to
bfloat16, makes a whole step wherever the number lay between two. So what another engine makes of
such a network differs by more than other batches and threads show, and each perturbation is one
draw of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from assembler.network import network_runner
from assembler.network.model import Network
from engine.divergence.metrics import Continuation, Reading

# Of a number: about what the order of sums changes, and in bfloat16 as much as rounding may.
RELATIVE = {torch.float32: 1e-6, torch.bfloat16: 2**-8}
NUM_DRAWS = 3


def readings(network: Network, texts: Sequence[Continuation]) -> dict[str, list[Reading]]:
    """What the network makes of texts under each of `NUM_DRAWS` perturbations, for a noise floor
    (`engine.divergence.noise`)."""
    found = {}
    for seed in range(NUM_DRAWS):
        with perturbed(network, seed=seed):
            found[f"perturbed, {seed}"] = network_runner.runner(network).read(texts)
    return found


def in_bfloat16(network: Network, texts: Sequence[Continuation]) -> dict[str, list[Reading]]:
    """As `readings`, by a network in bfloat16, and what that makes of texts as it is: the noise
    floor of what is served so, and written in float32."""
    found = {"as it is": network_runner.runner(network).read(texts), **readings(network, texts)}
    return {f"in bfloat16, {name}": own for name, own in found.items()}


@contextmanager
def perturbed(network: Network, *, seed: int) -> Iterator[None]:
    """The network with each of its embeddings' numbers moved by about `RELATIVE` of itself, for the
    length of the block; they have one of the dtypes there."""
    weight = network.model.embed_tokens.weight
    before = weight.data
    noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(seed))
    moved = before.float() * (1 + RELATIVE[before.dtype] * noise)
    weight.data = moved.to(before)
    try:
        yield
    finally:
        weight.data = before
