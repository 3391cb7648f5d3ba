"""A wish for a smaller checkpoint as data, and what a search found: size against divergence.

Free of torch.
"""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from engine.compression.int8_units import Target, Unit
from engine.compression.measures import Measures, ProbeSize
from engine.gates.report import Data
from registry.errors import InvalidInput, Problem, pointer

# What tells units apart: the first divergent token and perplexity on the reference's own text, or
# perplexity on a corpus; or nothing, and they are taken in the order of the network.
By = Literal["fdt", "dppl", "perplexity", "order"]


class Compression(ProbeSize):
    """How small a checkpoint must be, or how true it must stay, and how that is looked for."""

    target: Target = Field(default="cpu", description="What will serve it.")
    max_bytes: int | None = Field(default=None, ge=1, description="Of all its tensors.")
    min_fdt_75: float | None = Field(
        default=None,
        ge=0,
        description="75th percentile of the first divergent token; at most that of the checkpoint"
        " read against itself is asked.",
    )
    by: By = Field(default="fdt", description="What decides which units become int8.")
    beam_width: int = Field(default=1, ge=1, description="Configurations kept in each round.")
    rounds: int = Field(
        default=8, ge=1, description="In how many about equal steps everything would be int8."
    )

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        if (self.max_bytes is None) == (self.min_fdt_75 is None):
            raise ValueError("one of max_bytes and min_fdt_75 is needed, and not both")
        self.check_fdt(self.min_fdt_75)
        return self

    def check(self, units: Sequence[Unit], *, num_bytes: int) -> None:
        """Raises InvalidInput when a checkpoint of `num_bytes` with these units cannot become so
        small, or has nothing that could be int8."""
        if not units:
            raise InvalidInput(f"nothing of this checkpoint can be int8 on a {self.target}")
        least = num_bytes - sum(unit.num_bytes_saved for unit in units)
        if self.max_bytes is not None and self.max_bytes < least:
            detail = f"is {self.max_bytes}, with all units in int8 it has {least}"
            raise InvalidInput(
                "the checkpoint cannot be so small",
                problems=(Problem(pointer("max_bytes"), detail),),
            )


class Point(Measures):
    """One configuration: which units are int8, how large the checkpoint is, how far it strays."""

    units: tuple[str, ...]
    num_bytes: int
    int8_share: float = Field(description="Of the checkpoint's parameters, those in int8.")

    def satisfies(self, request: Compression, *, floor: "Point") -> bool:
        """`floor`: the checkpoint against itself. No more is asked than that shows."""
        if request.max_bytes is not None:
            return self.num_bytes <= request.max_bytes
        assert request.min_fdt_75 is not None
        return self.fdt_75 >= min(request.min_fdt_75, floor.fdt_75)


class Curve(Data):
    """What a search found, from nothing in int8, which is the noise floor, to as far as it went."""

    schema_version: Literal[1] = 1
    request: Compression
    points: tuple[Point, ...] = Field(min_length=1)

    @property
    def chosen(self) -> Point:
        """Of a size the truest point, of a quality the smallest.

        Raises InvalidInput when the search did not come to any that is small enough.
        """
        fits = [p for p in self.points if p.satisfies(self.request, floor=self.points[0])]
        if not fits:
            raise InvalidInput(f"no point has at most {self.request.max_bytes} bytes")
        if self.request.min_fdt_75 is not None:
            return min(fits, key=lambda p: (p.num_bytes, -p.fdt_75))
        return max(fits, key=lambda p: (p.fdt_75, p.fdt_mean, -p.dppl))
