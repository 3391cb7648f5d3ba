"""Policies in files."""

from pathlib import Path

import pytest

from engine.gates.policy import Policy
from registry.errors import InvalidInput
from service.cli import policy
from service.schemas.families import PolicyBody


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def test_yaml_and_json_are_read_alike(tmp_path: Path) -> None:
    fields = {"served": {"min_fdt_75": 8}, "prefix_tokens": 9}
    yaml = "# short texts\nserved:\n  min_fdt_75: 8\nprefix_tokens: 9\n"
    assert policy.read_policy(written(tmp_path, yaml)) == fields
    json = '{"served": {"min_fdt_75": 8}, "prefix_tokens": 9}'
    assert policy.read_policy(written(tmp_path, json)) == fields


def test_a_shown_policy_is_read_again(tmp_path: Path) -> None:
    body = PolicyBody(family="tiny", number=None, policy=Policy(), created_at=None)
    text = policy.policy_text(body)
    assert text.startswith("# Policy of family tiny, the default")
    assert policy.read_policy(written(tmp_path, text)) == Policy().model_dump(mode="json")


def test_a_number_may_have_an_exponent(tmp_path: Path) -> None:
    text = "served:\n  max_logprob_difference: 1e-4\n  min_fdt_75: 8\n"
    fields = {"served": {"max_logprob_difference": 1e-4, "min_fdt_75": 8}}
    assert policy.read_policy(written(tmp_path, text)) == fields


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert policy.read_policy(written(tmp_path, "# nothing yet\n")) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("served: [", "is neither YAML nor JSON"),
        ("- served", "holds no fields"),
        ("prefix_tokens: .nan", "has a value that JSON does not have"),
        ("prefix_tokens: 2026-11-25", "has a value that JSON does not have"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        policy.read_policy(written(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        policy.read_policy(tmp_path / "policy.yaml")
