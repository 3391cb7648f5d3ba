"""What a request asks about experts, on its way from the API process to the worker."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

# In `SamplingParams.extra_args`. What a client writes there is dropped.
KEY = "nexus"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one request asks.

    - `disabled`: numbers of the experts that are switched off.
    - `routing`: the answer holds the weights of the experts.
    - `blocks`: weights are those of each block, not their mean.
    - `prompt`: weights are given for the tokens of the prompt too.
    """

    disabled: tuple[int, ...] = ()
    routing: bool = False
    blocks: bool = False
    prompt: bool = False

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None) -> Self:
        """Read the extra arguments of a request."""
        values = (extra_args or {}).get(KEY, {})
        return cls(**values | {"disabled": tuple(values.get("disabled", ()))})

    def replace_in(self, extra_args: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return the extra arguments with this in the place of what a client wrote there."""
        others = {name: value for name, value in (extra_args or {}).items() if name != KEY}
        if self == type(self)():
            return others or None
        return others | {KEY: asdict(self)}
