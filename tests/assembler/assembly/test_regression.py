"""An average by regression solves the equations of RegMean, and is safe where nothing was read."""

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

from assembler.assembly import regression
from assembler.assembly.regression import Average, ByInputs, Exact, Mean
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import TensorEntry
from registry.checkpoints.numpy_tensors import Floats
from tests.assembler import moved_attention
from tests.assembler.moved_attention import EMBEDDINGS, NORM, QUERY

ROWS, WIDTH, DIRECTIONS = 40, 24, 5


def moments_of(number: int) -> Floats:
    """Return moments of inputs with some strong directions and a weak rest."""
    random = np.random.default_rng([1, number])
    diagonal = random.uniform(0.01, 0.1, (1, WIDTH))
    directions = (
        random.standard_normal((DIRECTIONS, WIDTH)) * 10.0 ** np.arange(DIRECTIONS)[:, None]
    )
    moments: Floats = np.concatenate([diagonal, directions]).astype(np.float32)
    return moments


def dense(moments: Floats) -> Exact:
    exact = moments.astype(np.float64)
    whole: Exact = np.diag(exact[0]) + exact[1:].T @ exact[1:]
    return whole


def weights(number: int) -> Floats:
    return np.random.default_rng([2, number]).standard_normal((ROWS, WIDTH), np.float32)


def expected(moments: Sequence[Floats], changes: Sequence[Floats]) -> Exact:
    """Solve the equations with whole matrices."""
    grams = [dense(each) for each in moments]
    ridge = regression.RIDGE * np.mean([np.diag(gram) for gram in grams]) * np.eye(WIDTH)
    grams = [gram + ridge for gram in grams]
    right = sum(change @ gram for change, gram in zip(changes, grams, strict=True))
    solved: Exact = np.linalg.solve(sum(grams), np.asarray(right).T).T
    return solved


def combined(rule: ByInputs, changes: Sequence[Floats | None]) -> Exact:
    exact = [None if change is None else change.astype(np.float64) for change in changes]
    return rule.combine(exact)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_it_equals_a_solution_with_whole_matrices(count: int) -> None:
    moments = [moments_of(number) for number in range(count)]
    changes = [weights(number) for number in range(count)]
    found = combined(ByInputs(moments), changes)
    np.testing.assert_allclose(found, expected(moments, changes), rtol=1e-6, atol=1e-7)


def test_an_expert_that_changed_nothing_holds_its_own_inputs() -> None:
    moments, change = [moments_of(0), moments_of(1)], weights(0)
    found = combined(ByInputs(moments), [change, None])
    zero = np.zeros_like(change)
    np.testing.assert_allclose(found, expected(moments, [change, zero]), rtol=1e-6, atol=1e-7)


def test_equal_changes_stay() -> None:
    change = weights(0)
    found = combined(ByInputs([moments_of(number) for number in range(3)]), [change] * 3)
    np.testing.assert_allclose(found, change, rtol=1e-6, atol=1e-7)


def test_experts_that_read_different_inputs_keep_their_answers() -> None:
    """The first reads the first half of the inputs only, the second the other half."""
    halves = np.zeros((2, 1 + DIRECTIONS, WIDTH), np.float32)
    halves[0, 0, : WIDTH // 2] = halves[1, 0, WIDTH // 2 :] = 1
    one, other = weights(0), weights(1)
    found = combined(ByInputs(list(halves)), [one, other])
    own = np.concatenate([one[:, : WIDTH // 2], other[:, WIDTH // 2 :]], 1)
    np.testing.assert_allclose(found, own, atol=1e-5)


def test_inputs_that_nobody_read_give_the_mean() -> None:
    nothing = np.zeros((1 + DIRECTIONS, WIDTH), np.float32)
    one, other = weights(0), weights(1)
    found = combined(ByInputs([nothing, nothing]), [one, other])
    np.testing.assert_allclose(found, (one + other) / 2, rtol=1e-5, atol=1e-6)


def store(blobs: LocalBlobs, values: Floats) -> TensorEntry:
    return numpy_tensors.write(blobs, values, dtype="F32")


def test_a_tensor_is_computed_in_blocks_of_rows(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression, "BLOCK_NUMBERS", 7 * WIDTH)
    seed = weights(9)
    moments = [moments_of(number) for number in range(3)]
    changes = [weights(number) for number in range(3)]
    entries = [store(blobs, seed + change) for change in changes]
    found = regression.moved(
        store(blobs, seed),
        seed=store(blobs, seed),
        before=None,
        after=Average(entries, ByInputs(moments)),
        blobs=blobs,
    )
    solved = seed + expected(moments, changes)
    np.testing.assert_allclose(numpy_tensors.read(blobs, found), solved, rtol=1e-5, atol=1e-5)


def test_a_moved_tensor_keeps_what_was_learned(blobs: LocalBlobs) -> None:
    """From an average of two, and something learned, to an average of three."""
    seed, learned = weights(9), weights(8)
    moments = [moments_of(number) for number in range(3)]
    changes = [weights(number) for number in range(3)]
    entries = [store(blobs, seed + change) for change in changes]
    before = expected(moments[:2], changes[:2])
    found = regression.moved(
        store(blobs, (seed + before + learned).astype(np.float32)),
        seed=store(blobs, seed),
        before=Average(entries[:2], ByInputs(moments[:2])),
        after=Average(entries, ByInputs(moments)),
        blobs=blobs,
    )
    solved = seed + learned + expected(moments, changes)
    np.testing.assert_allclose(numpy_tensors.read(blobs, found), solved, rtol=1e-4, atol=1e-4)


def test_the_mean_is_a_rule_too() -> None:
    one, other = (weights(number).astype(np.float64) for number in (0, 1))
    found = Mean().combine([one, None, other])
    np.testing.assert_allclose(found, (one + other) / 3)


def test_tensors_without_moments_have_no_regression(blobs: LocalBlobs) -> None:
    members = [moved_attention.member(blobs, number=number) for number in (1, 2)]
    assert regression.of_inputs(QUERY, members)
    assert regression.of_inputs(EMBEDDINGS, members)
    assert regression.of_inputs(NORM, members) is None
    unknown = regression.Member(checkpoint=members[0].checkpoint)
    assert regression.of_inputs(QUERY, [members[1], unknown]) is None


def test_memory_does_not_grow_with_the_rows(blobs: LocalBlobs) -> None:
    moments = [np.ones((17, 64), np.float32)] * 2
    block = regression.BLOCK_NUMBERS // 64

    def peak(rows: int) -> int:
        seed, *entries = (store(blobs, np.full((rows, 64), x, np.float32)) for x in (0, 1, 2))
        tracemalloc.start()
        try:
            average = Average(entries, ByInputs(moments))
            regression.moved(seed, seed=seed, before=None, after=average, blobs=blobs)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(8 * block) < 1.1 * peak(2 * block)
