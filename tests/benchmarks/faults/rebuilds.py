"""Undamaged mixes, made again and judged by the gate: none of them is an alarm.

They are tiny networks, trained in seconds: rebuilding forty real mixes takes hours. Every gate is
the product's, with all stages. The texts of a few are read by an engine, those of the others by the
reference network in other batches, another order and on another number of threads.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

from assembler.jobs import pipeline
from tests.benchmarks.faults import subjects
from tests.benchmarks.faults.judging import Verdict, by_gate, without_engine
from tests.benchmarks.faults.staging import own_home
from tests.benchmarks.faults.subjects import Subject

MIN_REBUILDS = 40
BATCHES = (1, 2, 3, 8)

Rebuild = tuple[Subject, bool, Callable[[], Verdict]]


def first(count: int, *, num_served: int) -> Iterator[Rebuild]:
    """Yield so many mixes, whether an engine reads each, and its judgment."""
    served = 0
    for number, subject in enumerate(islice(subjects.rebuilt(), count)):
        # Spread evenly over families: every tenth of them.
        is_served = number % 10 == 0 and served < num_served
        served += is_served
        yield subject, is_served, partial(judge, subject, number, is_served=is_served)


def judge(subject: Subject, number: int, *, is_served: bool) -> Verdict:
    """Make the mix again, and judge it."""
    again = pipeline.assemble(subject.inputs, subject.blobs)
    assert again.digest == subject.assembled.digest, "an assembly gives the same bytes"
    with own_home(subject.blobs) as store:
        if is_served:
            return by_gate(subject, store)
        with without_engine(BATCHES[number % len(BATCHES)], 1 + number % 2):
            return by_gate(subject, store)
