"""Merged adapters equal those of peft, on a tiny Llama; adapters of other networks are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import numpy_tensors
from registry.checkpoints.safetensors_header import read_header
from registry.errors import Incompatible, InvalidCheckpoint
from registry.imports import lora_adapters
from registry.imports.lora_config import LoraConfig
from tests import tiny, tiny_adapters

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def merge(folder: Path, blobs: LocalBlobs, config: dict[str, Any]) -> dict[str, Any]:
    """Return the merged tensors by name."""
    path = folder / "adapter_model.safetensors"
    seed = tiny.store_manifest(blobs)
    planned = lora_adapters.plan(LoraConfig.read(config), read_header(path), seed)
    tensors = lora_adapters.merge(planned, path, seed, blobs, on_tensor=lambda *_: None)
    return {name: numpy_tensors.read(blobs, entry) for name, entry in tensors.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": LINEAR},
        {"target_modules": LINEAR, "use_rslora": True},
        {"target_modules": LINEAR, "use_dora": True},
        {
            "target_modules": ["q_proj", "up_proj"],
            "rank_pattern": {"model.layers.1.self_attn.q_proj": 2},
            "alpha_pattern": {"up_proj": 32},
            "modules_to_save": ["norm"],
        },
    ],
    ids=["LoRA", "rsLoRA", "DoRA", "patterns and a whole module"],
)
def test_merged_weights_equal_those_of_peft(
    tmp_path: Path, blobs: LocalBlobs, options: dict[str, Any]
) -> None:
    import json

    import peft
    import torch
    from transformers import AutoModelForCausalLM

    seed = tiny.write_checkpoint(tmp_path / "seed")
    base = AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32)
    asked = peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **options)
    model = peft.get_peft_model(base, asked)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) / 8)
    model.save_pretrained(str(tmp_path / "adapter"))
    merged = model.merge_and_unload().state_dict()

    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    ours = merge(tmp_path / "adapter", blobs, config)
    changed = [name for name, data in tiny.tensors().items() if name in ours]
    assert changed
    for name, values in ours.items():
        rounded = merged[name].to(torch.bfloat16).float().numpy()
        # Sums in another order may round to the next number of bfloat16.
        np.testing.assert_allclose(values, rounded, rtol=2**-7, atol=1e-6, err_msg=name)
        assert np.mean(values != rounded) < 0.01, name


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_changes_the_weights_that_it_names(
    tmp_path: Path, blobs: LocalBlobs, dora: bool
) -> None:
    folder = tiny_adapters.write(tmp_path, dora=dora)
    ours = merge(folder, blobs, tiny_adapters.config(use_dora=dora))
    seed = tiny.store_manifest(blobs)
    parts = tiny_adapters.tensors(dora=dora)
    for name, entry in seed.tensors.items():
        expected = numpy_tensors.read(blobs, entry)
        module = name.removesuffix(".weight")
        if module in tiny_adapters.MODULES:
            inner = f"{tiny_adapters.PREFIX}{module}"
            delta = parts[f"{inner}.lora_B.weight"] @ parts[f"{inner}.lora_A.weight"]
            expected = expected + 2.0 * delta
            if dora:
                norms = np.linalg.norm(expected, axis=1)
                expected *= (parts[f"{inner}.lora_magnitude_vector"] / norms)[:, None]
        np.testing.assert_allclose(ours[name], expected, rtol=2**-7, atol=1e-6, err_msg=name)


def test_the_summary_names_kind_rank_and_targets(blobs: LocalBlobs) -> None:
    seed = tiny.store_manifest(blobs)
    spans = tiny_adapters.spans(model__norm__weight=(32,))
    planned = lora_adapters.plan(LoraConfig.read(tiny_adapters.config()), spans, seed)
    assert planned.summary == (
        "LoRA adapter of rank 4 on down_proj, q_proj (2 layers) with model.norm.weight as a whole"
    )


@pytest.mark.parametrize(
    ("changes", "config", "sentence"),
    [
        (
            {"model__layers__0__self_attn__q_proj__lora_A__weight": (8, 32)},
            {},
            "has rank 8 in lora_A [8, 32] and 4 in lora_B [128, 4]; the config asks rank 4",
        ),
        ({}, {"r": 8}, "has rank 4 in lora_A [4, 32]"),
        ({"model__layers__0__self_attn__q_proj__lora_A__weight": None}, {}, "has no lora_A"),
        ({}, {"use_dora": True}, "has no lora_magnitude_vector"),
        (
            {"model__layers__0__self_attn__q_proj__lora_magnitude_vector": (128,)},
            {},
            "has lora_magnitude_vector, but use_dora is not set",
        ),
    ],
)
def test_an_adapter_that_contradicts_itself_is_refused(
    blobs: LocalBlobs, changes: dict[str, Any], config: dict[str, Any], sentence: str
) -> None:
    seed = tiny.store_manifest(blobs)
    read = LoraConfig.read(tiny_adapters.config(**config))
    with pytest.raises(InvalidCheckpoint) as caught:
        lora_adapters.plan(read, tiny_adapters.spans(**changes), seed)
    assert sentence in caught.value.problems[0].detail


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model__layers__0__self_attn__q_proj__lora_B__weight": (256, 4)},
            "is adapted as [256, 32], the seed has [128, 32]",
        ),
        (
            {
                "model__layers__9__mlp__up_proj__lora_A__weight": (4, 32),
                "model__layers__9__mlp__up_proj__lora_B__weight": (64, 4),
            },
            "model.layers.9.mlp.up_proj is no linear layer of the seed",
        ),
        (
            {"model__embed_tokens__weight": (66, 32)},
            "has rows for 66 tokens, the seed has 64",
        ),
        ({"model__embed_tokens__weight": (64, 32)}, "which the seed ties to it"),
        ({"lm_head__weight": (64, 32)}, "ties its output layer to the embeddings"),
        ({"model__norm__weight": (48,)}, "is [48], the seed has [32]"),
        ({"model__other__weight": (1,)}, "is not in the seed"),
        (
            {"model__embed_tokens__lora_embedding_A": (4, 64)},
            "is no part of LoRA or DoRA on a linear layer",
        ),
    ],
)
def test_an_adapter_of_another_base_is_refused(
    blobs: LocalBlobs, changes: dict[str, Any], sentence: str
) -> None:
    seed = tiny.store_manifest(blobs)
    read = LoraConfig.read(tiny_adapters.config())
    with pytest.raises(Incompatible) as caught:
        lora_adapters.plan(read, tiny_adapters.spans(**changes), seed)
    assert "'tiny/seed'" in caught.value.detail
    assert sentence in caught.value.problems[0].detail
