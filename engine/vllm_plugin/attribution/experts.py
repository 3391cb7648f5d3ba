"""The experts of a served mix: their names, and which of them can be switched off."""

from dataclasses import dataclass
from typing import Any, Self

from registry.checkpoints.architecture import Architecture
from registry.errors import InvalidCheckpoint

# No name of an expert has a space.
SHARED = "shared expert"


@dataclass(frozen=True)
class Experts:
    """The experts of a mix.

    - `names`: of the columns of a row of weights: routed experts by number, then the shared expert.
    - `numbers`: of the routed experts that answer, by name.
    """

    names: tuple[str, ...]
    numbers: dict[str, int]

    @classmethod
    def of(cls, a: Architecture) -> Self:
        """Return the experts of the architecture of a mix."""
        names = a.expert_names
        answering = {n: i for i, n in enumerate(names) if i not in a.disabled_experts}
        return cls(names + (SHARED,) * a.shared_expert, answering)

    @property
    def speakers(self) -> tuple[str, ...]:
        """The names of those that compute tokens: not those that are off for everybody."""
        return tuple(name for name in self.names if name in self.numbers or name == SHARED)

    @property
    def all_names(self) -> str:
        """The names of the experts that answer, for a sentence."""
        return ", ".join(self.numbers)


def mix_of(hf_config: Any) -> Architecture | None:
    """Return the architecture of the mix that a config of vLLM describes; None if it is no mix.

    A mix whose config does not name its experts counts as none: nobody could say who spoke.
    """
    try:
        a = Architecture.from_config(hf_config.to_dict())
    except InvalidCheckpoint:
        return None
    return a if a.num_experts and len(a.expert_names) == a.num_experts else None
