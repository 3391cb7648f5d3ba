"""Mixes of any supported base: vLLM's own network, with a mixture in the place of each `mlp`.

A class is made when vLLM asks for it by name, `Nexus` and the name of the base's class. Where vLLM
has no network of its own, vLLM runs transformers' network, and the same replacement holds.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.model_loader.weight_utils import default_weight_loader
from vllm.model_executor.models.registry import ModelRegistry
from vllm.model_executor.models.utils import maybe_prefix

from engine.vllm_plugin.moe import MoE
from registry.checkpoints.architecture import MIX_PREFIX, Architecture
from registry.checkpoints.tensor_names import is_computed_with

FFN = ".mlp."
FUSED = "gate_up_proj"
# Which part of vLLM's fused layer each layer of a checkpoint is.
PARTS = {"gate_proj": 0, "up_proj": 1}

Weights = Iterable[tuple[str, Tensor]]


class BlockMoE(MoE):
    """A mixture that also takes inputs [1, T, D], as transformers' networks give them."""

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [..., D] to outputs [..., D]."""
        return super().forward(x.view(-1, x.shape[-1])).view_as(x)


class Surgery(nn.Module):
    """The first parent of a mix's class; the second one is vLLM's network of the base."""

    model: Any

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        a = Architecture.from_config(vllm_config.model_config.hf_config.to_dict())
        for number, layer in enumerate(self.model.layers):
            if isinstance(getattr(layer, "mlp", None), nn.Module):  # not on another pipeline stage
                name = maybe_prefix(prefix, f"model.layers.{number}.mlp")
                layer.mlp = BlockMoE(a, vllm_config=vllm_config, prefix=name)

    def load_weights(self, weights: Weights) -> set[str]:
        """Load `(name, tensor)` pairs; return the names of loaded parameters."""
        loaded: set[str] = set()
        # The base's own table of fused names would catch the experts, so it never sees them.
        others = self._without_ffns(weights, loaded)
        return (super().load_weights(others) or set()) | loaded  # type: ignore[misc]

    def _without_ffns(self, weights: Weights, loaded: set[str]) -> Iterator[tuple[str, Tensor]]:
        """Yield what belongs to no FFN; load the rest, and add its names to `loaded`."""
        for name, tensor in weights:
            if not is_computed_with(name):
                continue
            block, is_ffn, rest = name.partition(FFN)
            if not is_ffn:
                yield name, tensor
                continue
            mixture = self.get_submodule(f"{block}.mlp")
            assert isinstance(mixture, MoE)
            for part, piece in _unfused(rest, tensor):
                loaded |= {f"{block}{FFN}{found}" for found in _load(mixture, part, piece)}


def _unfused(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Split a tensor of gate and inner weight, as some bases store them."""
    if f".{FUSED}." not in name:
        yield name, tensor
        return
    for part, piece in zip(PARTS, tensor.chunk(2), strict=True):
        yield name.replace(FUSED, part), piece


def _load(mixture: MoE, name: str, tensor: Tensor) -> Iterator[str]:
    """Load one tensor of a mixture; yield the name of the parameter."""
    if name.startswith("experts."):
        experts: Any = mixture.experts
        for loaded in experts.load_weights([(name.removeprefix("experts."), tensor)]):
            yield f"experts.{loaded}"
        return
    owner, _, leaf = name.rpartition(".")
    module, _, part = owner.rpartition(".")
    if part in PARTS:
        name = f"{module}.{FUSED}.{leaf}"
    parameter: Any = mixture.get_parameter(name)
    loader = getattr(parameter, "weight_loader", default_weight_loader)
    loader(parameter, tensor, *([PARTS[part]] if part in PARTS else []))
    yield name


@cache
def _mix_class(architecture: str) -> type[nn.Module]:
    """Return the class of mixes of a base, given the name of the base's class."""
    base = ModelRegistry._try_load_model_cls(architecture)
    assert base is not None, "every base of the list is in vLLM's registry"
    packed = {**getattr(base, "packed_modules_mapping", {}), FUSED: list(PARTS)}
    members = {"__module__": __name__, "packed_modules_mapping": packed}
    return type(MIX_PREFIX + architecture, (Surgery, base), members)


def __getattr__(name: str) -> type[nn.Module]:
    if not name.startswith(MIX_PREFIX):
        raise AttributeError(name)
    return _mix_class(name.removeprefix(MIX_PREFIX))
