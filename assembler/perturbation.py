"""A network as other kernels would run it: every number that enters its layers a little off.

The order of sums moves a number by a few of its last digits, and of that rounding to int8 makes a
whole step wherever the number lay between two integers. So what another engine makes of an int8
network differs by more than other batches and threads show, and each perturbation is one draw of
it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from assembler import evaluate
from assembler.network import Network
from engine.divergence.metrics import Continuation, Reading

# Of a number, about what the order of sums in float32 changes.
RELATIVE = 1e-6
NUM_DRAWS = 3


def readings(network: Network, texts: Sequence[Continuation]) -> dict[str, list[Reading]]:
    """What the network makes of texts under each of `NUM_DRAWS` perturbations, for a noise floor
    (`engine.divergence.noise`)."""
    found = {}
    for seed in range(NUM_DRAWS):
        with perturbed(network, seed=seed):
            found[f"perturbed, {seed}"] = evaluate.runner(network).read(texts)
    return found


@contextmanager
def perturbed(network: Network, *, seed: int) -> Iterator[None]:
    """The network with each of its embeddings' numbers moved by about `RELATIVE` of itself, for the
    length of the block."""
    weight = network.model.embed_tokens.weight
    before = weight.data
    noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(seed))
    weight.data = before * (1 + RELATIVE * noise.to(before))
    try:
        yield
    finally:
        weight.data = before
