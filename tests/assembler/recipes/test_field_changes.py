"""Valid changes of fields are applied, every wrong one is named, and other fields stay."""

from typing import Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from assembler.recipes.field_changes import changed_fields, merge_changes, read


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    low: int = Field(default=0, ge=0)
    high: int = 9

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = "law"
    inner: Inner = Inner()


KNOWN = Outer().model_dump()


def test_only_named_inner_fields_change() -> None:
    made, problems = read(Outer, KNOWN, {"inner": {"low": 3}})
    assert (made.inner.low, made.inner.high, problems) == (3, 9, [])
    assert merge_changes(KNOWN, {"inner": {"low": 3}}) == {
        "name": "law",
        "inner": {"low": 3, "high": 9},
    }


def test_valid_changes_are_applied_beside_wrong_ones() -> None:
    changes = {"name": "code", "inner": {"low": -1, "high": 5, "width": 2}, "size": 1}
    made, problems = read(Outer, KNOWN, changes, at="part")
    assert (made.name, made.inner.low, made.inner.high) == ("code", 0, 5)
    details = {problem.pointer: problem.detail for problem in problems}
    assert list(details) == ["/part/inner/low", "/part/inner/width", "/part/size"]
    assert details["/part/inner/width"] == "is no field; there are low, high"
    assert details["/part/size"] == "is no field; there are name, inner"


def test_fields_that_contradict_each_other_stay_as_they_were() -> None:
    made, problems = read(Outer, KNOWN, {"inner": {"low": 7, "high": 5}})
    assert made.inner == Inner()
    (problem,) = problems
    assert problem.pointer == "/inner"
    assert "low is above high" in problem.detail


@pytest.mark.parametrize("changes", [{}, {"name": "law", "inner": {"high": 9}}])
def test_equal_models_have_no_differences(changes: dict[str, object]) -> None:
    assert changed_fields(read(Outer, KNOWN, changes)[0], Outer()) == {}


def test_differences_name_nested_fields() -> None:
    model = Outer(name="code", inner=Inner(low=2))
    assert changed_fields(model, Outer(), prefix="a.") == {"a.name": "code", "a.inner.low": 2}


@pytest.mark.parametrize("value", [True, "3", 3.5])
def test_a_value_of_another_type_is_no_number(value: object) -> None:
    made, problems = read(Outer, KNOWN, {"inner": {"low": value}})
    assert made.inner.low == 0
    assert [problem.pointer for problem in problems] == ["/inner/low"]
