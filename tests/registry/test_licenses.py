"""The license of a mix, and the warnings about licenses that bind it."""

import pytest

from registry.licenses import combine, concerns


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
