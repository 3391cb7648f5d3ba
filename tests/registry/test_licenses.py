"""The license of a mix, and the warnings about licenses that bind it."""

import pytest

from registry.errors import InvalidInput
from registry.licenses import check, combine, concerns


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        (["Apache-2.0"], "Apache-2.0"),
        (["Apache-2.0", "MIT", "apache-2.0"], "Apache-2.0 AND MIT"),
        (["MIT", "MIT OR Apache-2.0"], "MIT"),
        (["CC0-1.0", "MIT OR GPL-3.0-only"], "CC0-1.0 AND (GPL-3.0-only OR MIT)"),
        (["MIT", "our own (see file)"], "LicenseRef-our-own-see-file AND MIT"),
    ],
)
def test_all_licenses_apply_together(expressions: list[str], expected: str) -> None:
    assert combine(expressions) == expected


def test_permissive_licenses_give_no_warning() -> None:
    assert concerns({"seed": "Apache-2.0", "law": "MIT AND CC0-1.0", "maths": "CC-BY-4.0"}) == []


@pytest.mark.parametrize(
    ("license", "words"),
    [
        ("CC-BY-NC-4.0", "forbids commercial use"),
        ("CC-BY-ND-4.0", "forbids to share"),
        ("CC-BY-SA-4.0", "shared under the same license"),
        ("GPL-2.0-or-later WITH Classpath-exception-2.0", "shared under the same license"),
        ("AGPL-3.0", "shared under the same license"),
        ("LicenseRef-scancode-llama-3.1-license-2024", "restricts what the result may be used for"),
        ("Llama-3", "is no license that SPDX knows"),
    ],
)
def test_a_binding_term_is_named_with_its_owner(license: str, words: str) -> None:
    (concern,) = concerns({"seed": "Apache-2.0", "law": license, "maths": license})
    assert words in concern
    assert "brought by law, maths" in concern


def test_a_license_may_have_two_binding_terms() -> None:
    assert len(concerns({"law": "CC-BY-NC-SA-4.0"})) == 2


def test_the_freer_license_of_a_choice_counts() -> None:
    assert concerns({"law": "MIT OR GPL-3.0-only"}) == []
    assert len(concerns({"law": "MIT AND GPL-3.0-only"})) == 1


def test_two_share_alike_licenses_conflict() -> None:
    *_, conflict = concerns({"law": "GPL-3.0-only", "maths": "CC-BY-SA-4.0"})
    assert conflict.startswith("CC-BY-SA-4.0 and GPL-3.0-only each ask")


@pytest.mark.parametrize(
    "text",
    [
        "Apache-2.0",
        "apache-2.0",
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "MIT AND (CC-BY-4.0 OR LicenseRef-of-ours)",
        "DocumentRef-terms:LicenseRef-1.0",
        "LicenseRef-scancode-llama-3.1-license-2024",
    ],
)
def test_an_expression_is_taken(text: str) -> None:
    assert check(text, at="/license") == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not a license", "has 'not a license', which SPDX does not know"),
        ("Apache2", r"has 'Apache2', which SPDX does not know \(is it Apache-"),
        ("MIT AND ours", "has 'ours', which SPDX does not know"),
        ("LicenseRef-a b", "'LicenseRef-a b', which SPDX does not know"),
        ("MIT WITH MIT", "has 'MIT' as an exception"),
        ("Classpath-exception-2.0", "without a license"),
        ("MIT/Apache-2.0", "cannot be read"),
        ("MIT AND", "cannot be read"),
        ("()", "cannot be read"),
        (" ", "is empty"),
    ],
)
def test_what_is_no_expression_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        check(text, at="/license")
    assert "LicenseRef-NAME" in refused.value.detail
    assert refused.value.problems[0].pointer == "/license"
    assert combine([text]), "a row from before the check can still be used"
