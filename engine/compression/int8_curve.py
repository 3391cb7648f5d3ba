"""The request for a smaller checkpoint, and the curve of size against divergence a search found.

Free of torch.
"""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from engine.compression.int8_units import Target, Unit
from engine.compression.measures import Measures, ProbeSize
from engine.gates.report import Data
from registry.errors import InvalidInput, Problem, pointer

# How units are ranked: by the first divergent token or by perplexity, both on the reference's own
# text; by perplexity on a corpus; or not at all, in the order of the network.
By = Literal["fdt", "dppl", "perplexity", "order"]


class Compression(ProbeSize):
    """A request for a smaller checkpoint: the size or quality to reach, and the search for it."""

    target: Target = Field(default="cpu", description="The processor that will serve it.")
    max_bytes: int | None = Field(
        default=None, ge=1, le=2**63 - 1, description="Bytes of all its tensors."
    )
    min_fdt_75: float | None = Field(
        default=None,
        ge=0,
        description="75th percentile of the first divergent token to keep; capped at that of the"
        " checkpoint read against itself.",
    )
    by: By = Field(default="fdt", description="The measure that decides which units become int8.")
    beam_width: int = Field(
        default=1, ge=1, le=1000, description="Configurations kept in each round."
    )
    rounds: int = Field(
        default=8,
        ge=1,
        le=1000,
        description="Number of about equal steps until everything is int8.",
    )

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        if (self.max_bytes is None) == (self.min_fdt_75 is None):
            raise ValueError("one of max_bytes and min_fdt_75 is needed, and not both")
        self.check_fdt(self.min_fdt_75)
        return self

    def check(self, units: Sequence[Unit], *, num_bytes: int) -> None:
        """Raise InvalidInput when a checkpoint of `num_bytes` with these `units` cannot become
        small enough, or when none of its layers can be int8."""
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
    """One configuration: its int8 units, the size of the checkpoint, and how far it diverges."""

    units: tuple[str, ...] = Field(description="Names of the units in int8.")
    num_bytes: int = Field(description="Bytes of all tensors.")
    int8_share: float = Field(description="Share of the checkpoint's parameters in int8.")

    def satisfies(self, request: Compression, *, floor: "Point") -> bool:
        """Return whether the point meets the request.

        `floor` is the checkpoint read against itself. A required FDT above that of the floor is
        lowered to it.
        """
        if request.max_bytes is not None:
            return self.num_bytes <= request.max_bytes
        assert request.min_fdt_75 is not None
        return self.fdt_75 >= min(request.min_fdt_75, floor.fdt_75)


class Curve(Data):
    """The points a search found; the first, without int8, is the noise floor."""

    schema_version: Literal[1] = Field(default=1, description="Version of this format.")
    request: Compression = Field(description="The request of the search.")
    points: tuple[Point, ...] = Field(
        min_length=1, description="Every configuration that was kept, from nothing in int8 on."
    )

    @property
    def chosen(self) -> Point:
        """The least divergent point of a requested size, or the smallest of a quality.

        Raises InvalidInput when the search found no point that is small enough.
        """
        fits = [p for p in self.points if p.satisfies(self.request, floor=self.points[0])]
        if not fits:
            raise InvalidInput(f"no point has at most {self.request.max_bytes} bytes")
        if self.request.min_fdt_75 is not None:
            return min(fits, key=lambda p: (p.num_bytes, -p.fdt_75))
        return max(fits, key=lambda p: (p.fdt_75, p.fdt_mean, -p.dppl))
