"""Faults in the code of the assembler, which a second assembly by the same code repeats."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest import mock

from assembler.assembly import regression, upcycle
from assembler.assembly.averaging import mean
from assembler.jobs import pipeline
from registry.checkpoints import numpy_tensors, tensor_names
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.tensor_names import as_routed_expert
from tests.benchmarks.faults.judging import Verdict, by_gate
from tests.benchmarks.faults.planted import Code
from tests.benchmarks.faults.staging import own_home
from tests.benchmarks.faults.subjects import Subject

Renamed = Callable[[str, int], str]


def _put(owner: object, name: str, value: object) -> AbstractContextManager[object]:
    return mock.patch.object(owner, name, value)


def _expert_names(renamed: Renamed) -> AbstractContextManager[object]:
    return _put(upcycle, "as_routed_expert", renamed)


def other_order() -> AbstractContextManager[object]:
    return _expert_names(
        lambda name, number: as_routed_expert(name, {0: 1, 1: 0}.get(number, number))
    )


def next_block() -> AbstractContextManager[object]:
    """Give each expert of the first two blocks the FFN of the other one."""
    other = {"0": "1", "1": "0"}

    def renamed(name: str, number: int) -> str:
        _, _, block, rest = name.split(".", 3)
        return as_routed_expert(f"model.layers.{other.get(block, block)}.{rest}", number)

    return _expert_names(renamed)


def gate_and_inner() -> AbstractContextManager[object]:
    other = {"gate_proj": "up_proj", "up_proj": "gate_proj"}

    def renamed(name: str, number: int) -> str:
        *start, part, weight = name.split(".")
        return as_routed_expert(".".join([*start, other.get(part, part), weight]), number)

    return _expert_names(renamed)


def weighed_mean() -> AbstractContextManager[object]:
    def weighed(entries: Sequence[TensorEntry], **fields: Any) -> TensorEntry:
        weights = [float(number + 1) for number in range(len(entries))]
        return mean(entries, **(fields | {"weights": weights}))

    return _put(upcycle, "mean", weighed)


def first_in_place_of_mean() -> AbstractContextManager[object]:
    def first(entries: Sequence[TensorEntry], **_: Any) -> TensorEntry:
        return entries[0]

    return _put(upcycle, "mean", first)


def mean_in_place_of_regression() -> AbstractContextManager[object]:
    return _put(regression, "of_inputs", lambda *_: None)


def moments_of_another() -> AbstractContextManager[object]:
    """Weigh each expert by what the next one has read."""
    original = regression.of_inputs

    def shifted(name: str, members: Sequence[regression.Member]) -> regression.Average | None:
        moved = [*members[1:], members[0]]
        found = [
            replace(member, moments=other.moments)
            for member, other in zip(members, moved, strict=True)
        ]
        return original(name, found)

    return _put(regression, "of_inputs", shifted)


def _finished(
    change: Callable[[dict[str, TensorEntry], Any], object],
) -> AbstractContextManager[object]:
    original = upcycle.finished

    def finished(seed: Manifest, mix: Any, **fields: Any) -> Manifest:
        made = original(seed, mix, **fields)
        entries = dict(made.tensors)
        change(entries, fields["blobs"])
        return replace(made, tensors=entries)

    return _put(upcycle, "finished", finished)


def rows_of_another_block() -> AbstractContextManager[object]:
    def exchange(entries: dict[str, TensorEntry], _: object) -> None:
        one, other = (tensor_names.router_rows(layer) for layer in (0, 1))
        entries[one], entries[other] = entries[other], entries[one]

    return _finished(exchange)


def unfolded_rows() -> AbstractContextManager[object]:
    def scale(entries: dict[str, TensorEntry], blobs: Any) -> None:
        name = tensor_names.router_rows(0)
        rows = numpy_tensors.read(blobs, entries[name]) * 1.1
        entries[name] = numpy_tensors.write(blobs, rows, dtype=entries[name].dtype)

    return _finished(scale)


def shared_of_an_expert() -> AbstractContextManager[object]:
    def replaced(entries: dict[str, TensorEntry], _: object) -> None:
        for part in tensor_names.FFN_PARTS:
            shared = f"{tensor_names.shared_expert(0)}.{part}.weight"
            entries[shared] = entries[f"{tensor_names.routed_expert(0, 0)}.{part}.weight"]

    return _finished(replaced)


def norms_of_the_seed() -> AbstractContextManager[object]:
    """Leave norms as the seed has them, where experts changed them."""
    original = upcycle.averages

    def averages(names: Sequence[str], members: Any, *, seed: Manifest, blobs: Any) -> Any:
        made = original(names, members, seed=seed, blobs=blobs)
        return made | {name: seed.tensors[name] for name in names if "norm" in name}

    return _put(upcycle, "averages", averages)


FAULTS = (
    Code(name="experts in another order", where="names of experts", plant=other_order),
    Code(name="experts of the next block", where="names of experts", plant=next_block),
    Code(name="gate as inner weight", where="names of an FFN's parts", plant=gate_and_inner),
    Code(name="shared expert of an expert", where="in one block", plant=shared_of_an_expert),
    Code(name="mean with other weights", where="of the experts' tensors", plant=weighed_mean),
    Code(name="one expert for the mean", where="of norms", plant=first_in_place_of_mean),
    Code(name="mean for a regression", where="of attention", plant=mean_in_place_of_regression),
    Code(name="another expert's moments", where="of attention", plant=moments_of_another),
    Code(name="norms of the seed", where="which experts changed", plant=norms_of_the_seed),
    Code(name="rows of another block", where="of two routers", plant=rows_of_another_block),
    Code(name="rows that are not folded", where="of one router", plant=unfolded_rows),
)


def judge(subject: Subject, fault: Code) -> Verdict:
    """Assemble with a fault in the code, and judge the result by the gate with the same fault."""
    undamaged = subject.assembled
    with own_home(subject.blobs) as store, fault.plant():
        mix = pipeline.assemble(subject.inputs, store)
        assert mix != undamaged, f"{fault.name} changes nothing"
        return by_gate(subject, store, replace(subject.checkpoints, assembled=mix))
