"""Prints a plan: every problem, or what each step needs."""

from rich.table import Table
from rich.text import Text

from assembler.planning.plan_data import Plan, Size, StepPlan
from service.quantities import between, count, size
from service.terminal.console import console
from service.terminal.printable import printable


def print_plan(plan: Plan) -> None:
    """Print problems, or the size and the steps of the mix, its license and warnings."""
    if plan.problems:
        console.print(Text(printable(f"{plan.name} cannot be made"), style="red"))
        for problem in plan.problems:
            console.print(printable(f"  {problem.pointer}: {problem.detail}"))
    if plan.existing is not None:
        console.print(f"{plan.existing} exists with the same recipe: nothing would be done")
    if plan.size is not None:
        _print_size(plan.name, plan.size)
    if plan.license is not None:
        console.print(printable(f"license: {plan.license}"))
    for caution in plan.warnings:
        console.print(Text.assemble(("warning", "yellow"), printable(f"  {caution.detail}")))


def _print_size(name: str, planned: Size) -> None:
    table = Table(
        title=f"{name}: {count(planned.num_parameters)} parameters,"
        f" {count(planned.num_active_parameters)} of them for each token",
        title_justify="left",
        title_style="bold",
    )
    for column in ("step", "reads", "keeps", "scratch", "memory", "time"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for step in planned.steps:
        table.add_row(
            step.step,
            size(step.bytes_read),
            size(step.bytes_kept),
            size(step.bytes_scratch),
            _memory(step),
            between(step.seconds.low, step.seconds.high),
        )
    console.print(table)
    for basis in dict.fromkeys(step.seconds.basis for step in planned.steps):
        steps = ", ".join(step.step for step in planned.steps if step.seconds.basis == basis)
        console.print(f"time of {steps}: {basis}")
    console.print(
        f"{planned.finetune_tokens:,} tokens to finetune; {size(planned.disk_needed)} of disk,"
        f" {size(planned.disk_free)} are free"
    )


def _memory(step: StepPlan) -> str:
    if step.memory_per_process is None:
        return size(step.memory)
    return f"{size(step.memory)}, {size(step.memory_per_process)} a process"
