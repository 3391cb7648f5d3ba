"""What may be asked of a search for zeros, and which point answers."""

from typing import Any

import pytest
from pydantic import ValidationError

from engine.compression.sparsity_curve import SparsePoint, Sparsification, SparsityCurve


def point(share: float, fdt_75: float) -> SparsePoint:
    return SparsePoint(
        shares={}, share=share, num_bytes=9, fdt_75=fdt_75, fdt_mean=5, dppl=1, perplexity=20
    )


POINTS = (point(0, 30), point(0.2, 28), point(0.4, 31), point(0.6, 12))


def curve(**request: Any) -> SparsityCurve:
    return SparsityCurve(request=Sparsification(**request), points=POINTS)


def test_of_a_quality_the_most_zeros() -> None:
    assert curve(share=1, min_fdt_75=28).chosen.share == 0.4
    assert curve(share=1, min_fdt_75=10).chosen.share == 0.6


def test_no_more_is_asked_than_the_checkpoint_shows_against_itself() -> None:
    assert curve(share=1, min_fdt_75=32).chosen.share == 0.4


def test_where_no_quality_is_asked_the_last() -> None:
    assert curve(share=0.6).chosen.share == 0.6


def test_totals_rise_by_steps_to_the_share() -> None:
    assert Sparsification(share=0.35).totals == pytest.approx([0.1, 0.2, 0.3, 0.35])
    assert Sparsification(share=0.3).totals == pytest.approx([0.1, 0.2, 0.3])
    assert Sparsification(share=0.05).totals == [0.05]
    assert Sparsification(share=1, step=0.4).totals == pytest.approx([0.4, 0.8, 1.0])


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({}, "Field required"),
        ({"share": 0.5, "min_fdt_75": 33}, "only 32 tokens are compared"),
        ({"share": 1.5}, "less than or equal to 1"),
        ({"share": 0.5, "step": 0}, "greater than 0"),
        ({"share": 0.5, "by": "order"}, "'fdt', 'dppl' or 'uniform'"),
    ],
)
def test_what_cannot_be_meant_is_refused(request_: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Sparsification.model_validate(request_)
