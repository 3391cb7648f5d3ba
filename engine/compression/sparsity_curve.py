"""A wish for a sparse checkpoint as data, and what a search found: zeros against divergence.

Free of torch.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from engine.compression.measures import Measures, ProbeSize
from engine.gates.report import Data

# What tells components apart: divergent tokens and perplexity, both on the reference's own text, or
# that perplexity alone; or nothing, and all get the same share.
By = Literal["fdt", "dppl", "uniform"]

# Of one round: the paper begins with 20 points, but always retrains behind each round.
DEFAULT_STEP = 0.1


class Sparsification(ProbeSize):
    """How many weights are to be zero, at most as many as leave the checkpoint true enough."""

    share: float = Field(gt=0, le=1, description="Of the weights of attention and FFNs.")
    min_fdt_75: float | None = Field(
        default=None,
        ge=0,
        description="75th percentile of the first divergent token; at most that of the checkpoint"
        " read against itself is asked.",
    )
    by: By = Field(default="fdt", description="What decides the share of each component.")
    step: float = Field(
        default=DEFAULT_STEP, gt=0, le=1, description="By which each round raises the total share."
    )
    retrain_tokens: int = Field(
        default=0,
        ge=0,
        le=10**12,
        description="Of training text that what is left learns from behind each round.",
    )
    keep_zeros: bool = Field(
        default=False,
        description="Leave in what vanished, for those who know no network without it.",
    )

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        self.check_fdt(self.min_fdt_75)
        return self

    @property
    def totals(self) -> list[float]:
        """The total share after each round, to `share`."""
        # Less a little: what rounding leaves is no round of its own.
        number = math.floor(self.share / self.step - 1e-9)
        return [*(self.step * (i + 1) for i in range(number)), self.share]


class SparsePoint(Measures):
    """One configuration: the share of zeros of each component and of all, and how far it strays."""

    shares: dict[str, float]
    share: float = Field(description="Of the weights of all components.")
    num_bytes: int = Field(
        description="Of all tensors as they are stored, with what vanished still in them."
    )

    def satisfies(self, request: Sparsification, *, floor: "SparsePoint") -> bool:
        """`floor`: the checkpoint against itself. No more is asked than that shows."""
        if request.min_fdt_75 is None:
            return True
        return self.fdt_75 >= min(request.min_fdt_75, floor.fdt_75)


class SparsityCurve(Data):
    """What a search found, from the checkpoint as it is, which is the noise floor, to as far as it
    went."""

    schema_version: Literal[1] = 1
    request: Sparsification
    points: tuple[SparsePoint, ...] = Field(min_length=1)

    @property
    def chosen(self) -> SparsePoint:
        """The one with most zeros among those that are true enough, of which the first is one."""
        fits = [p for p in self.points if p.satisfies(self.request, floor=self.points[0])]
        return max(fits, key=lambda p: p.share)
