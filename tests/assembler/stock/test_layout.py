"""What no stock layout holds is refused in one sentence; what it holds is described in full."""

from dataclasses import replace

import pytest

from assembler.stock import layout
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import int8_config
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput
from tests import tiny
from tests.assembler import base_networks, networks
from tests.assembler.stock_mixes import MIXES

LLAMA = MIXES["llama"]


def manifest_of(architecture: Architecture) -> Manifest:
    return Manifest(config=architecture.to_config(), tensors={})


@pytest.mark.parametrize(
    ("architecture", "obstacle"),
    [
        (replace(LLAMA, parallel_block=True), "attention and FFN side by side"),
        (replace(LLAMA, attention="experts"), "attention is a mixture of experts too"),
        (networks.ARCHITECTURES["mlp"], "routers have a hidden layer"),
        (networks.NEXUS, "heads are 32 wide, and the layout has 8"),
        (base_networks.mixed("llama-linear"), "adds a bias to its output"),
        (base_networks.mixed("mistral"), "sees a window of 16 tokens only"),
        (base_networks.mixed("gemma2"), "no program has a mixture with the blocks of Gemma 2"),
        (replace(tiny.ARCHITECTURE, ffn_sizes=(0, 64)), "parts of its blocks were removed"),
    ],
)
def test_what_a_layout_does_not_hold_is_refused(architecture: Architecture, obstacle: str) -> None:
    with pytest.raises(InvalidInput, match=f"^mine@1 cannot be rewritten exactly .*{obstacle}"):
        layout.check(manifest_of(architecture), name="mine@1")


def test_int8_is_refused_with_the_way_out() -> None:
    modules = ["model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj"]
    scheme = int8_config.quantization_config(modules, largest_weight=64)
    manifest = manifest_of(LLAMA)
    manifest = replace(manifest, config={**manifest.config, "quantization_config": scheme})
    with pytest.raises(InvalidInput, match="2 of its layers are int8, so take a version without"):
        layout.check(manifest, name="mine@1")


def test_all_obstacles_are_named_at_once() -> None:
    architecture = replace(networks.ARCHITECTURES["mlp"], parallel_block=True)
    with pytest.raises(InvalidInput, match=r"side by side; .*a hidden layer; .* 32 wide"):
        layout.check(manifest_of(architecture), name="mine@1")


@pytest.mark.parametrize("name", MIXES)
def test_every_layout_is_accepted(name: str) -> None:
    layout.check(manifest_of(MIXES[name]), name="mine@1")


def test_a_dense_checkpoint_keeps_its_config(blobs: LocalBlobs) -> None:
    manifest = tiny.store_manifest(blobs)
    layout.check(manifest, name="mine@1")
    assert layout.config(manifest) == manifest.config
    assert layout.class_name(manifest) == "LlamaForCausalLM"


def test_positions_stand_in_the_new_and_the_old_form() -> None:
    config = layout.config(manifest_of(MIXES["llama-llama3"]))
    rope = dict(config["rope_parameters"])
    assert config["rope_theta"] == rope.pop("rope_theta") == 1e5
    assert config["rope_scaling"] == rope
    assert "rope_scaling" not in layout.config(manifest_of(LLAMA))


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_no_head_is_tied(name: str) -> None:
    # vLLM's Qwen3-Next does not read the field, and leaves a head without values.
    assert MIXES[name].tie_word_embeddings
    manifest = manifest_of(MIXES[name])
    assert layout.config(manifest)["tie_word_embeddings"] is False


def test_fields_of_the_seed_are_kept() -> None:
    manifest = manifest_of(LLAMA)
    kept = {"dtype": "bfloat16", "eos_token_id": [2, 5], "expert_names": ["a"]}
    config = layout.config(replace(manifest, config=manifest.config | kept))
    assert (config["dtype"], config["eos_token_id"]) == ("bfloat16", [2, 5])
    assert not {"expert_names", "router", "combine"} & config.keys()
