"""Sketch what attention and the head of a network read while it reads text.

Letters: T tokens of a batch, I width of an input, R rows of a sketch, K of them that are kept.
"""

import torch
from torch import Tensor

from assembler.network.model import Network
from assembler.routing.input_moments import NUM_DIRECTIONS
from registry.checkpoints.numpy_tensors import Floats
from registry.checkpoints.tensor_names import LM_HEAD, WEIGHT, input_of

# Directions that are followed from batch to batch. Those that are kept at the end are the larger
# half, which what is cut between batches hardly turns.
FOLLOWED = 2 * NUM_DIRECTIONS
# Steps of the power method in each batch.
POWER_STEPS = 1


class Sketch:
    """The second moment of rows [T, I] that arrive in batches: its diagonal, and R directions.

    It holds R + 1 rows, whatever the number of tokens. The diagonal is exact. The moment of the
    directions alone never exceeds the true moment.
    """

    def __init__(self) -> None:
        self._num_tokens = 0
        self._squares_I, self._directions_RI = torch.zeros(()), torch.empty(0, 0)

    def add(self, x_TI: Tensor) -> None:
        """Add the inputs of a batch, in float32."""
        self._num_tokens += len(x_TI)
        self._squares_I = self._squares_I + x_TI.square().sum(0)
        known_RI = self._directions_RI.view(-1, x_TI.shape[1])
        self._directions_RI = principal_rows(torch.cat([known_RI, x_TI]), FOLLOWED)

    def rows(self) -> Tensor:
        """Return the moment of one token as rows [1 + K, I]; see `input_moments`."""
        width = self._directions_RI.shape[1]
        kept_KI = self._directions_RI.new_zeros(min(NUM_DIRECTIONS, width), width)
        found_KI = self._directions_RI[: len(kept_KI)]
        kept_KI[: len(found_KI)] = found_KI
        rest_I = (self._squares_I - kept_KI.square().sum(0)).clamp_min(0)
        # Of squares, the mean; of directions, its root.
        return torch.cat(
            [rest_I[None] / self._num_tokens, kept_KI / self._num_tokens**0.5],
        )


class LinearInputs:
    """Sketches of all that the averaged weights of a dense network read, while it reads text.

    `skip` tokens at the beginning of every sequence are left out.
    """

    def __init__(self, network: Network, *, skip: int) -> None:
        self._skip = skip
        self._sketches: dict[str, Sketch] = {}
        is_tied = network.architecture.tie_word_embeddings
        for name in network.architecture.tensor_shapes():
            read = input_of(name, is_tied=is_tied)
            if read is not None and read not in self._sketches:
                self._sketches[read] = Sketch()
                self._watch(network, name.removesuffix(WEIGHT), read)

    def moments(self) -> dict[str, Floats]:
        """Return the moments of all inputs by name, of the text that was read; see `shapes`."""
        return {name: sketch.rows().numpy() for name, sketch in self._sketches.items()}

    def _watch(self, network: Network, module: str, read: str) -> None:
        if read.startswith(LM_HEAD):
            # Logits are not computed here, so the head is not called.
            network.model.register_forward_hook(
                lambda _module, _inputs, x_BTD: self._add(read, x_BTD)
            )
        else:
            network.get_submodule(module).register_forward_pre_hook(
                lambda _module, inputs: self._add(read, inputs[0])
            )

    def _add(self, read: str, x_BTI: Tensor) -> None:
        self._sketches[read].add(x_BTI[:, self._skip :].flatten(0, 1).float())


def principal_rows(a_SI: Tensor, count: int) -> Tensor:
    """Return at most `count` rows B [R, I], the largest first, so that `BᵀB` is about `AᵀA`.

    It is the randomized range finder with power steps (Halko, Martinsson, Tropp, arXiv 0909.4061,
    algorithm 4.4). `BᵀB` is `AᵀQQᵀA` of an orthonormal Q, and so never exceeds `AᵀA`. Equal inputs
    give equal rows.
    """
    size = min(count, *a_SI.shape)
    generator = torch.Generator().manual_seed(0)
    test_IR = torch.randn(a_SI.shape[1], size, generator=generator)
    q_SR, _ = torch.linalg.qr(a_SI @ test_IR)
    for _ in range(POWER_STEPS):
        across_IR, _ = torch.linalg.qr(a_SI.mT @ q_SR)
        q_SR, _ = torch.linalg.qr(a_SI @ across_IR)
    b_RI = q_SR.mT @ a_SI
    _, axes_RR = torch.linalg.eigh(b_RI @ b_RI.mT)
    rows_RI: Tensor = axes_RR.mT.flip(0) @ b_RI
    return rows_RI
