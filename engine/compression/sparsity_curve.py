"""The request for a sparse checkpoint, and the curve of zeros against divergence a search found.

Free of torch.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from engine.compression.measures import Measures, ProbeSize
from engine.gates.report import Data

# How components are ranked: by divergent tokens and perplexity, both on the reference's own text;
# by that perplexity alone; or not at all, so that all get the same share.
By = Literal["fdt", "dppl", "uniform"]

# The share that one round adds. The paper begins with 20 points, but always retrains after each
# round.
DEFAULT_STEP = 0.1


class Sparsification(ProbeSize):
    """The wanted share of zeros, limited by how close to itself the checkpoint must stay."""

    share: float = Field(
        gt=0, le=1, description="Share of zeros among the weights of attention and FFNs."
    )
    min_fdt_75: float | None = Field(
        default=None,
        ge=0,
        description="75th percentile of the first divergent token to keep; capped at that of the"
        " checkpoint read against itself.",
    )
    by: By = Field(
        default="fdt", description="The measure that decides the share of each component."
    )
    step: float = Field(
        default=DEFAULT_STEP, gt=0, le=1, description="Share of zeros that each round adds."
    )
    retrain_tokens: int = Field(
        default=0,
        ge=0,
        le=10**12,
        description="Tokens of training text to retrain on after each round.",
    )
    keep_zeros: bool = Field(
        default=False,
        description="Keep components that are all zeros, for software that needs them.",
    )

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        self.check_fdt(self.min_fdt_75)
        return self

    @property
    def totals(self) -> list[float]:
        """The total share of zeros after each round, ending with `share`."""
        # The small subtraction keeps a rounding remainder from becoming a round of its own.
        number = math.floor(self.share / self.step - 1e-9)
        return [*(self.step * (i + 1) for i in range(number)), self.share]


class SparsePoint(Measures):
    """One configuration: shares of zeros by component and in total, and its divergence."""

    shares: dict[str, float]
    share: float = Field(description="Share of zeros among the weights of all components.")
    num_bytes: int = Field(
        description="Bytes of all tensors as they are stored, all-zero components included."
    )

    def satisfies(self, request: Sparsification, *, floor: "SparsePoint") -> bool:
        """Return whether the point meets the request.

        `floor` is the checkpoint read against itself. A required FDT above that of the floor is
        lowered to it.
        """
        if request.min_fdt_75 is None:
            return True
        return self.fdt_75 >= min(request.min_fdt_75, floor.fdt_75)


class SparsityCurve(Data):
    """The points a search found; the first, unchanged, is the noise floor."""

    schema_version: Literal[1] = 1
    request: Sparsification
    points: tuple[SparsePoint, ...] = Field(min_length=1)

    @property
    def chosen(self) -> SparsePoint:
        """The point with the most zeros that meets the request; the first always does."""
        fits = [p for p in self.points if p.satisfies(self.request, floor=self.points[0])]
        return max(fits, key=lambda p: p.share)
