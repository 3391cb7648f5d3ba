"""Waived limits of a gate, as data: a client sends them, and an artifact keeps them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from engine.gates.report import Failure
from registry.errors import InvalidInput


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Waiver(_Data):
    """One limit of a gate that an override waives."""

    domain: str = Field(description="Domain of the limit.")
    metric: str = Field(description="Metric of the limit with its stage, as in `served.fdt_75`.")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `DOMAIN:METRIC`. Raises InvalidInput."""
        domain, separator, metric = text.partition(":")
        if not separator:
            raise InvalidInput(f"{text!r} is not DOMAIN:METRIC, as in go:served.fdt_75")
        return cls(domain=domain, metric=metric)

    @classmethod
    def of(cls, failure: Failure) -> Self:
        return cls(domain=failure.domain, metric=failure.metric)

    def __str__(self) -> str:
        return f"{self.domain}:{self.metric}"


class Override(_Data):
    """The record of an override, which the artifact keeps and the service signs."""

    schema_version: Literal[1] = Field(default=1, description="Version of this format.")
    gate_report: str = Field(description="Digest of the report whose failures are waived.")
    scope: tuple[Waiver, ...] = Field(description="Every limit that is waived.")
    reason: str = Field(description="Why the mix may be used nevertheless.")
    by: str = Field(description="Name of the key that did it.")
    at: datetime = Field(description="When it was done.")

    def covers(self, failures: Iterable[Failure]) -> bool:
        return {Waiver.of(failure) for failure in failures} <= set(self.scope)
