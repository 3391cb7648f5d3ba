"""Forms become requests for mixes."""

import pytest

from registry.errors import InvalidInput
from service.ui.forms import OverrideForm, RequestForm, RevisionForm


def test_lines_are_fields() -> None:
    form = RequestForm(
        name="mine",
        family="tiny",
        experts=["law", "code"],
        tokens="8,192",
        fields="experts_per_token=2\n\nfinetune.seed=3\ngates.prompts_per_domain=4\n",
    )
    asked = form.spec()
    assert (asked.name, asked.experts, asked.preset) == ("mine", ["law", "code"], "nexus")
    assert set(asked.assembly) == {"experts_per_token"}
    assert asked.finetune is not None
    assert set(asked.finetune) == {"seed", "tokens"}
    assert asked.finetune["tokens"] == 8192


def test_a_wrong_line_is_refused() -> None:
    with pytest.raises(InvalidInput):
        RequestForm(fields="experts_per_token").spec()


def test_a_change_needs_an_expert() -> None:
    with pytest.raises(InvalidInput) as refused:
        RevisionForm().spec("mine@1")
    assert [problem.pointer for problem in refused.value.problems] == ["/expert"]
    asked = RevisionForm(joining="sea", fields="finetune.seed=3").spec("mine@1")
    assert (asked.base, asked.joining, asked.leaving, asked.name) == ("mine@1", "sea", None, None)


def test_a_waiver_has_a_domain_and_a_metric() -> None:
    (waiver,) = OverrideForm(scope=["law:served.sdt"]).waivers()
    assert (waiver.domain, waiver.metric) == ("law", "served.sdt")
    with pytest.raises(InvalidInput):
        OverrideForm(scope=["law"]).waivers()
