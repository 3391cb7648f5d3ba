"""A wish for a sparse checkpoint as data, and what a search found: zeros against divergence.

Free of torch.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from engine.held_out import Data, Measures, Texts
from registry.errors import InvalidInput

# What tells components apart: the first divergent token, or perplexity on the reference's own text;
# or nothing, and all get the same share.
By = Literal["fdt", "dppl", "uniform"]

# Of one round: the paper begins with 20 points, but retrains behind each round.
DEFAULT_STEP = 0.1


class Sparsification(Texts):
    """How many weights must be zero, or how true the checkpoint must stay."""

    share: float | None = Field(
        default=None, gt=0, le=1, description="Of the weights of attention and FFNs."
    )
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

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        if (self.share is None) == (self.min_fdt_75 is None):
            raise ValueError("one of share and min_fdt_75 is needed, and not both")
        self.check_fdt(self.min_fdt_75)
        return self

    @property
    def totals(self) -> list[float]:
        """The total share after each round, to `share`, or until all is zero."""
        last = 1.0 if self.share is None else self.share
        # Less a little: what rounding leaves is no round of its own.
        number = math.floor(last / self.step - 1e-9)
        return [*(self.step * (i + 1) for i in range(number)), last]


class SparsePoint(Measures):
    """One configuration: the share of zeros of each component and of all, and how far it strays."""

    shares: dict[str, float]
    share: float = Field(description="Of the weights of all components.")
    num_bytes: int = Field(description="Of all tensors as they are stored.")

    def satisfies(self, request: Sparsification, *, floor: "SparsePoint") -> bool:
        """`floor`: the checkpoint against itself. No more is asked than that shows."""
        if request.share is not None:
            return self.share >= request.share - 1e-3
        assert request.min_fdt_75 is not None
        return self.fdt_75 >= min(request.min_fdt_75, floor.fdt_75)


class SparsityCurve(Data):
    """What a search found, from the checkpoint as it is, which is the noise floor, to as far as it
    went."""

    schema_version: Literal[1] = 1
    request: Sparsification
    points: tuple[SparsePoint, ...] = Field(min_length=1)

    @property
    def chosen(self) -> SparsePoint:
        """The one with most zeros among those that are true enough, or the one of the share that
        was asked for."""
        fits = [p for p in self.points if p.satisfies(self.request, floor=self.points[0])]
        if not fits:
            raise InvalidInput(f"no point has a share of {self.request.share} zeros")
        if self.request.share is not None:
            return fits[0]
        return max(fits, key=lambda p: (p.share, p.fdt_75))
