"""`FIELD=VALUE` as fields of a request."""

import pytest

from registry.errors import InvalidInput
from service import assignments


def test_json_values_are_parsed() -> None:
    assert assignments.read(
        ["experts_per_token=2", "shared_expert=false", "combine=sum", "finetune.learning_rate=1e-3"]
    ) == {
        "experts_per_token": 2,
        "shared_expert": False,
        "combine": "sum",
        "finetune": {"learning_rate": 0.001},
    }


def test_numbers_that_json_does_not_have_are_texts() -> None:
    assert assignments.read(["gates.prefix_tokens=NaN"]) == {"gates": {"prefix_tokens": "NaN"}}


def test_a_stage_of_the_policy_has_its_own_fields() -> None:
    assert assignments.read(["gates.served.min_fdt_75=8", "gates.prefix_tokens=9"]) == {
        "gates": {"served": {"min_fdt_75": 8}, "prefix_tokens": 9}
    }


def test_written_values_are_read_again() -> None:
    for value in (2, 0.5, True, "sum", [1, 2]):
        assert assignments.read([f"field={assignments.as_text(value)}"]) == {"field": value}


def test_every_wrong_assignment_is_named() -> None:
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
