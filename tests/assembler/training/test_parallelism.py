"""Processes must divide the batch, and their groups the experts."""

import pytest

from assembler.training.parallelism import Parallelism
from registry.errors import StepFailed


def pointers(*, processes: int, degree: int, experts: int, batch: int) -> list[str]:
    parallelism = Parallelism(num_processes=processes, expert_parallel_degree=degree)
    return [p.pointer for p in parallelism.problems(num_experts=experts, batch_size=batch)]


def test_a_fitting_mix_has_no_problems() -> None:
    assert pointers(processes=4, degree=2, experts=6, batch=8) == []
    # A plain mean has no experts.
    assert pointers(processes=2, degree=2, experts=0, batch=4) == []


def test_every_problem_is_named() -> None:
    degree = "NEXUSMIX_EXPERT_PARALLEL_DEGREE"
    problem_pointers = pointers(processes=4, degree=3, experts=4, batch=6)
    assert problem_pointers == [degree, degree, "/finetune/batch_size"]
    with pytest.raises(StepFailed, match=r"divide the 4 training processes.*multiple of the 4"):
        Parallelism(num_processes=4, expert_parallel_degree=3).check(num_experts=4, batch_size=6)


def test_parallelism_is_read_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_TRAINING_PROCESSES", "4")
    monkeypatch.setenv("NEXUSMIX_EXPERT_PARALLEL_DEGREE", "2")
    assert Parallelism.of_settings() == Parallelism(num_processes=4, expert_parallel_degree=2)
