"""The model card names every part with its license, and lets nobody's text become markup."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from assembler.stock import model_card
from registry.checkpoints.manifests import Manifest
from tests import tiny
from tests.assembler import stock_mixes
from tests.assembler.stock_mixes import MIXES


def card_of(name: str = "llama", **changes: Any) -> str:
    manifest = Manifest(config=MIXES[name].to_config(), tensors={})
    return model_card.render(manifest, replace(stock_mixes.origins(), **changes))


def fields_of(card: str) -> dict[str, object]:
    _, fields, _ = card.split("---\n", 2)
    content: dict[str, object] = yaml.safe_load(fields)
    return content


def test_every_part_stands_with_its_license_and_digest() -> None:
    card = card_of()
    assert f"| seed tiny | Apache-2.0 | A seed. | {'0' * 64} |" in card
    assert f"| expert expert-2@1 | MIT |  | {'2' * 64} |" in card
    assert '"preset": "nexus"' in card
    assert "AutoModelForCausalLM.from_pretrained" in card
    assert "vllm serve" in card


def test_licenses_are_those_that_the_hub_knows() -> None:
    both = fields_of(card_of())
    assert (both["license"], both["license_name"]) == ("other", "Apache-2.0 AND MIT")
    seed = stock_mixes.origins().seed
    assert fields_of(card_of(experts=(seed,)))["license"] == "apache-2.0"


def test_text_of_owners_stays_text() -> None:
    seed = replace(
        stock_mixes.origins().seed,
        license="LicenseRef-mine",
        description="a | b\n\n# <b>title</b>\x1b[31m `code` [link](http://x)",
        notes=("from hf:me/mine@main",),
    )
    card = card_of(seed=seed)
    [row] = [line for line in card.splitlines() if line.startswith("| seed")]
    assert r"a \| b \# \<b\>title\</b\> \[31m \`code\` \[link\](http://x) |" in row
    assert "- tiny: from hf:me/mine@main" in card


def test_disabled_experts_are_named_as_left_out() -> None:
    card = card_of("llama-disabled")
    assert "A mixture of 2 experts" in card
    assert "disabled: expert-1" in card


def test_what_a_layout_costs_is_said() -> None:
    assert "prefer float32" in card_of("qwen3")
    assert "prefer float32" not in card_of("llama")


@pytest.mark.parametrize(
    ("name", "is_named"),
    [("llama", True), ("qwen2", True), ("llama-dynamic", True), ("llama-btx", False),
     ("llama-llama3", False), ("qwen2-yarn", False), ("qwen3", False)],
)  # fmt: skip
def test_llama_cpp_is_named_where_it_computes_the_same(name: str, is_named: bool) -> None:
    assert ("convert_hf_to_gguf.py" in card_of(name)) == is_named


def test_a_dense_checkpoint_has_a_card_too() -> None:
    manifest = Manifest(config=tiny.config(), tensors={})
    origins = replace(stock_mixes.origins("expert-1@1"), recipe=None)
    card = model_card.render(manifest, origins)
    assert "A dense model of the family `tiny`" in card
    assert "LlamaForCausalLM" in card
    assert "convert_hf_to_gguf" not in card
