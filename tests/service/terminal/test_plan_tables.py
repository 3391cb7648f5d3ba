"""A plan on the terminal."""

import pytest

from assembler.planning.plan_data import Estimate, Plan, PlanWarning, Size, StepPlan
from registry.errors import Problem
from service.terminal.plan_tables import print_plan

STEP = StepPlan(
    step="assemble",
    bytes_read=2_000_000,
    bytes_kept=1_000,
    bytes_scratch=0,
    memory=80_000_000,
    seconds=Estimate(low=1, high=90, basis="rough: [assumed]"),
)
SIZE = Size(
    num_parameters=373_000_000,
    num_active_parameters=214_000_000,
    num_bytes=1,
    finetune_tokens=0,
    disk_needed=1_000,
    disk_free=50_000_000_000,
    steps=(STEP,),
)


def test_a_plan_is_printed_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    caution = PlanWarning(kind="condition", detail="alike, 7.1", value=7.1)
    print_plan(
        Plan(
            name="mine",
            family="tiny",
            experts=("a@1", "b@1"),
            problems=(),
            warnings=(caution,),
            license="MIT",
            existing="mine@1",
            size=SIZE,
        )
    )
    out = capsys.readouterr().out
    assert "mine: 373 M parameters, 214 M of them for each token" in out
    assert "1.0 s to 1 min 30 s" in out
    for words in (
        "rough: [assumed]",
        "license: MIT",
        "alike, 7.1",
        "mine@1 exists with the same recipe",
    ):
        assert words in out


def test_memory_is_printed_per_process(capsys: pytest.CaptureFixture[str]) -> None:
    step = STEP.model_copy(update={"memory": 4_000_000_000, "memory_per_process": 2_000_000_000})
    many = SIZE.model_copy(update={"steps": (step,)})
    print_plan(Plan(name="mine", family="tiny", experts=(), problems=(), size=many))
    out = capsys.readouterr().out
    assert "4 GB" in out
    assert "2 GB a process" in out


def test_a_plan_with_problems_has_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    problems = (Problem("/name", "is [odd]"), Problem("/experts/1", "no expert 'x'"))
    print_plan(Plan(name="mine", family="tiny", experts=(), problems=problems))
    out = capsys.readouterr().out
    assert "mine cannot be made" in out
    assert "/name: is [odd]" in out
    assert "/experts/1: no expert 'x'" in out
    assert "parameters" not in out
