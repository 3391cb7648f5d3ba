"""Train low-rank updates of linear layers, and write them as peft does.

LoRA (arXiv 2106.09685, section 4.1): a layer computes `W x + s B A x` with `s = alpha / rank`. B
starts at zero, so that training starts at the seed. Letters: I input, O output, R rank.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from registry.checkpoints.file_names import ADAPTER_CONFIG, ADAPTER_TENSORS
from registry.imports.lora_adapters import PREFIX

RANK = 16
ALPHA = 32


class LoraLinear(nn.Linear):
    """A frozen linear layer with a trained update; its weight keeps its name."""

    def __init__(self, frozen: nn.Linear, generator: torch.Generator) -> None:
        # On the meta device: the weights are those of `frozen`.
        super().__init__(frozen.in_features, frozen.out_features, bias=False, device="meta")
        self.weight, self.bias = frozen.weight, frozen.bias
        bound = 1 / math.sqrt(frozen.in_features)
        a_RI = torch.empty(RANK, frozen.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_a, self.lora_b = (
            nn.Parameter(a_RI),
            nn.Parameter(torch.zeros(frozen.out_features, RANK)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [..., I] to outputs [..., O]."""
        update = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return super().forward(x) + ALPHA / RANK * update


def adapt(network: nn.Module, *, seed: int) -> None:
    """Replace the linear layers of all FFNs by layers with updates, drawn with `seed`."""
    generator = torch.Generator().manual_seed(seed)
    for name, module in list(network.named_modules()):
        if ".mlp." in name and isinstance(module, nn.Linear):
            network.set_submodule(name, LoraLinear(module, generator))


def write(network: nn.Module, folder: Path) -> None:
    """Write the adapter of an adapted network: its config and its tensors in float32."""
    layers = dict(_adapted(network))
    tensors = {
        f"{PREFIX}{name}.{part}.weight": parameter.detach().contiguous()
        for name, layer in layers.items()
        for part, parameter in (("lora_A", layer.lora_a), ("lora_B", layer.lora_b))
    }
    save_file(tensors, folder / ADAPTER_TENSORS, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": sorted({name.rpartition(".")[2] for name in layers}),
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def _adapted(network: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    return (
        (name, module) for name, module in network.named_modules() if isinstance(module, LoraLinear)
    )
