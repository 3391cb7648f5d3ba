"""Make tiny LoRA and DoRA adapters of `tests.tiny`'s seed without peft, as peft saves them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from registry.catalog import documents
from registry.checkpoints.safetensors_header import TensorSpan
from tests import tiny

RANK = 4
MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")
PREFIX = "base_model.model."


def config(**changes: Any) -> dict[str, Any]:
    """Return an `adapter_config.json`."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny/seed",
        "r": RANK,
        "lora_alpha": 8,
        "lora_dropout": 0.05,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "target_modules": ["q_proj", "down_proj"],
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        **changes,
    }


def tensors(*, rank: int = RANK, dora: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors of an adapter by their names in the file, in float32."""
    made: dict[str, np.ndarray[Any, Any]] = {}
    for number, module in enumerate(MODULES):
        rows, columns = tiny.ARCHITECTURE.tensor_shapes()[f"{module}.weight"]
        random = np.random.default_rng(number)
        made[f"{PREFIX}{module}.lora_A.weight"] = random.standard_normal((rank, columns))
        made[f"{PREFIX}{module}.lora_B.weight"] = random.standard_normal((rows, rank)) / 8
        if dora:
            made[f"{PREFIX}{module}.lora_magnitude_vector"] = random.uniform(0.5, 2, rows)
    return {name: values.astype(np.float32) for name, values in made.items()}


def spans(**changes: tuple[int, ...] | None) -> dict[str, TensorSpan]:
    """Return the header of an adapter with other shapes; None removes a tensor.

    In the names of `changes`, `__` stands for a dot.
    """
    shapes = {name: values.shape for name, values in tensors().items()}
    for key, shape in changes.items():
        name = PREFIX + key.replace("__", ".")
        if shape is None:
            del shapes[name]
        else:
            shapes[name] = shape
    return {name: TensorSpan("F32", shape, 0, 0) for name, shape in shapes.items()}


def safetensors_bytes(values: dict[str, np.ndarray[Any, Any]]) -> bytes:
    content, reached = {}, 0
    for name, array in values.items():
        end = reached + array.nbytes
        shape = list(array.shape)
        content[name] = {"dtype": "F32", "shape": shape, "data_offsets": [reached, end]}
        reached = end
    header = json.dumps(content).encode()
    return b"".join(
        [len(header).to_bytes(8, "little"), header, *(array.tobytes() for array in values.values())]
    )


def write(folder: Path, *, dora: bool = False, **changes: Any) -> Path:
    """Write an adapter with documents as peft and its owner leave it, and return `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config(use_dora=dora, **changes)))
    data = safetensors_bytes(tensors(dora=dora))
    (folder / "adapter_model.safetensors").write_bytes(data)
    (folder / "README.md").write_text("# Model Card for Model ID\n")
    sample = documents.serialize(tiny.sample_documents(expert=1))
    (folder / "documents.jsonl").write_bytes(sample)
    return folder
