"""Requests for a smaller checkpoint, and the point of a curve that meets them."""

from typing import Any

import pytest
from pydantic import ValidationError

from engine.compression.int8_curve import Compression, Curve, Point
from engine.compression.int8_units import units
from registry.blobs.blobs import LocalBlobs
from registry.errors import InvalidInput
from tests import tiny


def point(num_bytes: int, fdt_75: float, *, fdt_mean: float = 5, dppl: float = 1.5) -> Point:
    return Point(
        units=(), num_bytes=num_bytes, int8_share=0, fdt_75=fdt_75, fdt_mean=fdt_mean, dppl=dppl,
        perplexity=20,
    )  # fmt: skip


POINTS = (point(100, 30), point(80, 28), point(60, 31, fdt_mean=9), point(40, 12))


def curve(**request: Any) -> Curve:
    return Curve(request=Compression(**request), points=POINTS)


def test_smallest_point_of_a_requested_quality_is_chosen() -> None:
    assert curve(min_fdt_75=28).chosen.num_bytes == 60
    assert curve(min_fdt_75=10).chosen.num_bytes == 40


def test_requested_quality_is_capped_at_the_noise_floor() -> None:
    assert curve(min_fdt_75=32).chosen.num_bytes == 60


def test_least_divergent_point_of_a_requested_size_is_chosen() -> None:
    assert curve(max_bytes=85).chosen.num_bytes == 60
    assert curve(max_bytes=50).chosen.num_bytes == 40


def test_a_size_that_the_search_did_not_reach_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at most 39 bytes"):
        _ = curve(max_bytes=39).chosen


def test_a_curve_survives_json() -> None:
    original = curve(min_fdt_75=3)
    assert Curve.model_validate_json(original.model_dump_json()) == original


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({}, "one of max_bytes and min_fdt_75"),
        ({"max_bytes": 9, "min_fdt_75": 9}, "and not both"),
        ({"min_fdt_75": 33}, "only 32 tokens are compared"),
        ({"max_bytes": 0}, "greater than or equal to 1"),
        ({"max_bytes": 9, "target": "tpu"}, "'cpu', 'cpu-vnni' or 'gpu'"),
        ({"max_bytes": 9, "budget": 9}, "Extra inputs are not permitted"),
    ],
)
def test_invalid_requests_are_refused(request_: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Compression.model_validate(request_)


def test_an_impossible_size_is_refused_before_the_search(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    available = units(manifest, "cpu")
    least = manifest.num_bytes - sum(unit.num_bytes_saved for unit in available)
    Compression(max_bytes=least).check(available, num_bytes=manifest.num_bytes)
    with pytest.raises(InvalidInput) as refused:
        Compression(max_bytes=least - 1).check(available, num_bytes=manifest.num_bytes)
    assert refused.value.problems[0].pointer == "/max_bytes"
    assert str(least) in refused.value.problems[0].detail


def test_a_checkpoint_without_units_is_refused() -> None:
    with pytest.raises(InvalidInput, match="on a cpu"):
        Compression(max_bytes=1).check([], num_bytes=10)
