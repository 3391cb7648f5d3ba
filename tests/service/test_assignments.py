"""`FIELD=VALUE` as fields of a request."""

import pytest

from registry.errors import InvalidInput
from service import assignments


def test_values_are_json_where_they_are() -> None:
    assert assignments.read(
        ["experts_per_token=2", "shared_expert=false", "combine=sum", "finetune.learning_rate=1e-3"]
    ) == {
        "experts_per_token": 2,
        "shared_expert": False,
        "combine": "sum",
        "finetune": {"learning_rate": 0.001},
    }


def test_what_is_no_number_in_json_is_a_text() -> None:
    assert assignments.read(["gates.prefix_tokens=NaN"]) == {"gates": {"prefix_tokens": "NaN"}}


def test_a_stage_of_the_policy_has_fields_of_its_own() -> None:
    assert assignments.read(["gates.served.min_fdt_75=8", "gates.prefix_tokens=9"]) == {
        "gates": {"served": {"min_fdt_75": 8}, "prefix_tokens": 9}
    }


def test_what_is_written_is_read_again() -> None:
    for value in (2, 0.5, True, "sum", [1, 2]):
        assert assignments.read([f"field={assignments.as_text(value)}"]) == {"field": value}


def test_all_that_set_nothing_are_named() -> None:
    wrong = ["combine", "=sum", "training.tokens=1", "gates.a.b=1", "experts=law", "finetune=1"]
    with pytest.raises(InvalidInput) as refused:
        assignments.read(wrong)
    details = [problem.detail for problem in refused.value.problems]
    assert len(details) == len(wrong)
    assert details[2] == (
        "'training.tokens=1' is none of FIELD=VALUE, finetune.FIELD=VALUE, compress.FIELD=VALUE,"
        " gates.FIELD=VALUE, gates.STAGE.FIELD=VALUE"
    )
    assert [p.pointer for p in refused.value.problems[-2:]] == ["/experts", "/finetune"]
