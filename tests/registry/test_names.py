"""Names, references and digests are recognized; everything else is refused."""

import pytest

from registry.errors import InvalidInput
from registry.names import check_name, is_digest, parse_ref


@pytest.mark.parametrize("name", ["law", "7b", "a.b_c-d", "a" * 63])
def test_a_valid_name_is_returned(name: str) -> None:
    assert check_name(name, at="/name") == name
    assert parse_ref(name) == (name, None)


@pytest.mark.parametrize("name", ["", "-law", ".law", "Law", "a b", "a/b", "a@b", "a" * 64, "lä"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_name(name, at="/name")
    assert refused.value.problems[0].pointer == "/name"
    with pytest.raises(InvalidInput):
        parse_ref(name)


def test_a_reference_is_split_into_name_and_number() -> None:
    assert parse_ref("law@12") == ("law", 12)


@pytest.mark.parametrize("ref", ["law@", "law@0", "law@01", "law@-1", "law@x", "law@1@2", "@1"])
def test_an_invalid_reference_is_refused(ref: str) -> None:
    with pytest.raises(InvalidInput, match="neither a name nor name@number"):
        parse_ref(ref)


def test_a_digest_is_lower_case_hexadecimal() -> None:
    assert is_digest("0123456789abcdef" * 4)
    assert not is_digest("0123456789ABCDEF" * 4)
    assert not is_digest("0" * 63)
    assert not is_digest("0" * 64 + "\n")
