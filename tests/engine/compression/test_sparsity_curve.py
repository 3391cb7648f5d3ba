"""Requests for a sparse checkpoint, and the point of a curve that meets them."""

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


def test_point_with_most_zeros_of_a_requested_quality_is_chosen() -> None:
    assert curve(share=1, min_fdt_75=28).chosen.share == 0.4
    assert curve(share=1, min_fdt_75=10).chosen.share == 0.6


def test_requested_quality_is_capped_at_the_noise_floor() -> None:
    assert curve(share=1, min_fdt_75=32).chosen.share == 0.4


def test_last_point_is_chosen_without_a_requested_quality() -> None:
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
def test_invalid_requests_are_refused(request_: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Sparsification.model_validate(request_)
