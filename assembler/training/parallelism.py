"""Over how many processes a finetune is spread, and what fits that; told without torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from registry.errors import Problem, StepFailed
from registry.settings import settings

# Where the processes of a group meet, as `torch.distributed.init_process_group` takes it. Unset it
# is what torchrun says.
INIT_METHOD = "NEXUSMIX_INIT_METHOD"


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """`num_processes` share the batch and the network; within groups of `expert_parallel_degree`
    of them, each keeps other routed experts."""

    num_processes: int = 1
    expert_parallel_degree: int = 1

    @classmethod
    def of_settings(cls) -> Self:
        """Of the steps that this installation starts."""
        return cls(
            num_processes=settings().training_processes,
            expert_parallel_degree=settings().expert_parallel_degree,
        )

    def misfits(self, *, num_experts: int, batch_size: int) -> Iterator[Problem]:
        """What of a mix with so many routed experts, none for a plain mean, cannot be spread so."""
        processes, degree = self.num_processes, self.expert_parallel_degree
        setting = "NEXUSMIX_EXPERT_PARALLEL_DEGREE"
        if processes % degree:
            yield Problem(setting, f"is {degree}, must divide the {processes} training processes")
        if num_experts % degree:
            yield Problem(setting, f"is {degree}, must divide the mix's {num_experts} experts")
        if batch_size % processes:
            detail = f"is {batch_size}, must be a multiple of the {processes} training processes"
            yield Problem("/finetune/batch_size", detail)

    def check(self, *, num_experts: int, batch_size: int) -> None:
        """Raises StepFailed with everything that does not fit."""
        problems = tuple(self.misfits(num_experts=num_experts, batch_size=batch_size))
        if problems:
            told = "; ".join(f"{problem.pointer} {problem.detail}" for problem in problems)
            raise StepFailed(f"the finetune cannot be spread so: {told}")
