"""How many processes share a finetune, and whether a mix fits them. Free of torch."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from registry.errors import Problem, StepFailed
from registry.settings import settings

# Environment variable with the `init_method` of `torch.distributed.init_process_group`. When it is
# unset, torchrun's own environment variables apply.
INIT_METHOD = "NEXUSMIX_INIT_METHOD"


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """The processes of a finetune.

    `num_processes` share the batch and the network. Within groups of `expert_parallel_degree` of
    them, each process keeps other routed experts.
    """

    num_processes: int = 1
    expert_parallel_degree: int = 1

    @classmethod
    def of_settings(cls) -> Self:
        """Return the parallelism of the training steps that this installation starts."""
        return cls(
            num_processes=settings().training_processes,
            expert_parallel_degree=settings().expert_parallel_degree,
        )

    def problems(self, *, num_experts: int, batch_size: int) -> Iterator[Problem]:
        """Yield every reason why a mix with `num_experts` routed experts cannot be trained so.

        `num_experts` is 0 for a plain mean.
        """
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
        """Raise StepFailed naming everything that does not fit."""
        problems = tuple(self.problems(num_experts=num_experts, batch_size=batch_size))
        if problems:
            details = "; ".join(f"{problem.pointer} {problem.detail}" for problem in problems)
            raise StepFailed(f"the finetune does not fit its processes: {details}")


def num_threads(num_processes: int = 1) -> int:
    """CPU threads of each process of a step: fixed, because the order of a sum depends on them."""
    return settings().reserved_cpus or max(1, (os.cpu_count() or 1) // num_processes)
