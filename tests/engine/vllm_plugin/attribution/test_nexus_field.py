"""The field `nexus` is read, or refused with what would be right."""

from typing import Any

import pytest

from engine.vllm_plugin.attribution.asked import Asked
from engine.vllm_plugin.attribution.experts import Experts
from engine.vllm_plugin.attribution.nexus_field import Refused, parse
from tests.assembler.networks import ARCHITECTURES, NEXUS

EXPERTS = Experts.of(NEXUS)
NAMES = "expert-0, expert-1, expert-2"


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ({}, Asked()),
        ({"routing": False, "prompt": None, "disable": None, "only": None}, Asked()),
        ({"routing": True}, Asked(routing=True)),
        ({"routing": "blocks"}, Asked(routing=True, blocks=True)),
        ({"routing": True, "prompt": True}, Asked(routing=True, prompt=True)),
        ({"disable": []}, Asked()),
        ({"disable": ["expert-2", "expert-0", "expert-2"]}, Asked(disabled=(0, 2))),
        ({"only": ["expert-1"]}, Asked(disabled=(0, 2))),
        ({"only": ["expert-0", "expert-1", "expert-2"]}, Asked()),
    ],
)
def test_a_field_is_read(field: dict[str, Any], asked: Asked) -> None:
    assert parse(field, {}, EXPERTS) == asked


@pytest.mark.parametrize(
    ("field", "param", "text"),
    [
        (3, "nexus", "must be an object"),
        (["routing"], "nexus", "must be an object"),
        ({"route": True}, "nexus", "has no 'route', only routing, prompt, disable, only"),
        ({"routing": "all"}, "nexus.routing", 'must be true or "blocks"'),
        ({"routing": 1}, "nexus.routing", 'must be true or "blocks"'),
        ({"routing": True, "prompt": "blocks"}, "nexus.prompt", "must be true"),
        ({"prompt": True}, "nexus.prompt", "ask for `nexus.routing` too"),
        ({"disable": "expert-0"}, "nexus.disable", "a list of names"),
        ({"only": [0]}, "nexus.only", "a list of names"),
        ({"disable": ["nobody"]}, "nexus.disable", f"'nobody', the experts are {NAMES}"),
        ({"only": ["shared expert"]}, "nexus.only", f"the experts are {NAMES}"),
        ({"only": []}, "nexus.only", f"leaves no expert; keep one of {NAMES}"),
        ({"disable": list(NEXUS.expert_names)}, "nexus.disable", "leaves no expert"),
        ({"disable": ["expert-0"], "only": ["expert-1"]}, "nexus", "not both"),
    ],
)
def test_a_wrong_field_is_refused(field: Any, param: str, text: str) -> None:
    with pytest.raises(Refused, match=text) as refused:
        parse(field, {}, EXPERTS)
    assert refused.value.param == param


def test_an_expert_that_is_off_for_all_is_unknown() -> None:
    experts = Experts.of(ARCHITECTURES["convex-disabled"])
    with pytest.raises(Refused, match=r"'expert-2', the experts are expert-0, expert-1$"):
        parse({"disable": ["expert-2"]}, {}, experts)
    with pytest.raises(Refused, match="leaves no expert"):
        parse({"disable": ["expert-0", "expert-1"]}, {}, experts)


def test_a_model_without_experts_refuses_every_field() -> None:
    with pytest.raises(Refused, match="`nexus` is for mixes"):
        parse({"routing": True}, {}, None)


def test_beam_search_is_refused() -> None:
    with pytest.raises(Refused, match="beam search"):
        parse({"routing": True}, {"use_beam_search": True}, EXPERTS)


def test_a_long_name_is_cut() -> None:
    with pytest.raises(Refused) as refused:
        parse({"only": ["x" * 10_000]}, {}, EXPERTS)
    assert len(str(refused.value)) < 200
