"""Forms become requests for mixes."""

import pytest

from engine.vllm_server.engine_options import DEFAULT, EngineOptions
from registry.errors import InvalidInput
from service.ui.forms import OptionsForm, OverrideForm, RequestForm, RevisionForm


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


def test_the_form_of_an_engine_stands_for_its_options() -> None:
    fields = {
        "context": 1024,
        "kv_memory_bytes": 2**31,
        "chat_template": "{% if true %}\n{{ messages }}{% endif %}",
        "engine_args": {"max_num_seqs": 4, "enable_prefix_caching": False},
    }
    form = OptionsForm.of(EngineOptions.model_validate(fields))
    assert form.fields() == fields
    # A browser sends line ends in its own way.
    sent = form.model_copy(update={"chat_template": form.chat_template.replace("\n", "\r\n")})
    assert sent.fields() == fields
    assert OptionsForm(kv_memory="2GB").fields() == {"kv_memory_bytes": 2_000_000_000}
    assert OptionsForm.of(DEFAULT).fields() == {}


@pytest.mark.parametrize("wrong", [{"kv_memory": "much"}, {"engine_args": "max_num_seqs"}])
def test_a_wrong_field_of_an_engine_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        OptionsForm(**wrong).fields()
