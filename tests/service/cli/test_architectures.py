"""The list of supported base models on the command line."""

import json

import pytest

from registry.bases.supported import BASES, REFUSED
from tests.service.command_line import run_here


def test_supported_and_refused_bases_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("architectures") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*BASES, *REFUSED))


def test_the_list_is_json_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("architectures", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [base["model_type"] for base in content["supported"]] == list(BASES)
    assert content["refused"].keys() == REFUSED.keys()
    [phi3] = [base for base in content["supported"] if base["model_type"] == "phi3"]
    assert (phi3["mixed"], phi3["int8"], phi3["attention"]) == (True, False, "windows")
