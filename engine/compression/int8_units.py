"""Which layers of a checkpoint can become int8, and the checkpoint that results. Free of torch.

A unit is the smallest part whose precision vLLM lets us choose: layers that vLLM fuses share one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from registry import cpu_features
from registry.checkpoints import tensor_names
from registry.checkpoints.architecture import Architecture, Shape
from registry.checkpoints.int8_config import (
    CONFIG_FIELD,
    LARGEST,
    LARGEST_WITHOUT_VNNI,
    int8_modules,
    largest_weight,
    quantization_config,
)
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.tensor_names import SCALE, WEIGHT
from registry.errors import InvalidCheckpoint

# The processor that serves the checkpoint; each has other kernels. `cpu` is any x86 processor,
# `cpu-vnni` one with instructions for int8. Among the CPU kernels of vLLM 0.32, only one that needs
# AMX multiplies routed experts in int8.
Target = Literal["cpu", "cpu-vnni", "gpu"]
LARGEST_WEIGHT: dict[Target, int] = {
    "cpu": LARGEST_WITHOUT_VNNI,
    "cpu-vnni": LARGEST,
    "gpu": LARGEST,
}

SCALE_BYTES = 4


@dataclass(frozen=True)
class Unit:
    """Linear layers that become int8 together.

    `layer` is the index of their block; for the head it is the number of blocks. `num_bytes` is
    their size now, `num_int8_bytes` their size in int8, scales included.
    """

    name: str
    layer: int
    modules: tuple[str, ...]
    num_bytes: int
    num_int8_bytes: int

    @property
    def num_bytes_saved(self) -> int:
        """The bytes that int8 saves."""
        return self.num_bytes - self.num_int8_bytes


def units(manifest: Manifest, target: Target) -> tuple[Unit, ...]:
    """Return the units of a checkpoint in the order of the network, without int8 or removed layers.

    Raises InvalidCheckpoint for a quantization that is not supported, and for a base whose layers
    cannot be int8.
    """
    check_base(manifest.architecture)
    int8_already = int8_modules(manifest.config)
    num_bytes = {name: entry.num_bytes for name, entry in manifest.tensors.items()}
    candidates = units_of(manifest.architecture, num_bytes, target)
    return tuple(unit for unit in candidates if int8_already.isdisjoint(unit.modules))


def check_base(a: Architecture) -> None:
    """Raise InvalidCheckpoint when the layers of this base cannot be int8."""
    if not a.base.int8:
        raise InvalidCheckpoint(f"{a.base.title} cannot be made int8: it fuses its layers")


def units_of(a: Architecture, num_bytes: Mapping[str, int], target: Target) -> tuple[Unit, ...]:
    """Return the units of a network in its order.

    `num_bytes` gives the size of each tensor by name. None of the tensors may be int8.
    """
    shapes = a.tensor_shapes()
    return tuple(
        _unit(name, layer, modules, shapes, num_bytes)
        for name, layer, modules in _groups(a, target)
        if modules[0] + WEIGHT in num_bytes
    )


def modules(units: Iterable[Unit]) -> list[str]:
    """Return the names of all linear layers of `units`."""
    return [module for unit in units for module in unit.modules]


def with_int8(
    manifest: Manifest, weights: Mapping[str, tuple[TensorEntry, TensorEntry]], *, target: Target
) -> Manifest:
    """Return the checkpoint with the given layers in int8.

    `weights` maps each layer to the stored entries of its integers and its scales.
    """
    tensors: dict[str, TensorEntry] = {}
    for name, entry in manifest.tensors.items():
        module = name.removesuffix(WEIGHT)
        if module in weights:
            tensors[name], tensors[module + SCALE] = weights[module]
        else:
            tensors[name] = entry
    int8_layers = int8_modules(manifest.config) | weights.keys()
    largest = max(LARGEST_WEIGHT[target], largest_weight(manifest.config))
    quantization = quantization_config(int8_layers, largest_weight=largest)
    config = manifest.config | {CONFIG_FIELD: quantization}
    return replace(manifest, config=config, tensors=tensors)


def num_bytes(manifest: Manifest, chosen: Iterable[Unit]) -> int:
    """Return the size of the checkpoint's tensors once the `chosen` units are int8."""
    return manifest.num_bytes - sum(unit.num_bytes_saved for unit in chosen)


def check_processor(manifest: Manifest) -> None:
    """Raise InvalidCheckpoint when int8 layers would overflow on this processor.

    Nothing else would reveal it: the overflow is silent.
    """
    largest = largest_weight(manifest.config)
    if largest > LARGEST_WITHOUT_VNNI and cpu_features.saturates_int8():
        raise InvalidCheckpoint(
            f"int8 weights up to {largest} overflow on this processor, which has no VNNI;"
            " compress for the target 'cpu'"
        )


def _groups(a: Architecture, target: Target) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Yield the name, the block and the linear layers of each possible unit."""
    for layer in range(a.num_hidden_layers):
        attention, ffn = tensor_names.attention(layer), tensor_names.ffn(layer)
        if a.num_experts == 0 or a.attention == "average":
            yield f"{attention}.qkv_proj", layer, tuple(f"{attention}.{p}_proj" for p in "qkv")
            yield f"{attention}.o_proj", layer, (f"{attention}.o_proj",)
        # Attention experts keep their precision: vLLM sees one wide attention, whose output
        # projection has a single scale for the outputs of all experts.
        if a.num_experts == 0:
            yield ffn, layer, _ffn(ffn)
            continue
        if a.shared_expert:
            shared = tensor_names.shared_expert(layer)
            yield shared, layer, _ffn(shared)
        if target == "gpu":
            experts = [tensor_names.routed_expert(layer, number) for number in range(a.num_experts)]
            modules = tuple(module for expert in experts for module in _ffn(expert))
            yield tensor_names.routed_experts(layer), layer, modules
    if not a.tie_word_embeddings:
        yield tensor_names.LM_HEAD, a.num_hidden_layers, (tensor_names.LM_HEAD,)


def _ffn(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in tensor_names.FFN_PARTS)


def _unit(
    name: str,
    layer: int,
    modules: tuple[str, ...],
    shapes: Mapping[str, Shape],
    num_bytes: Mapping[str, int],
) -> Unit:
    weights = [module + WEIGHT for module in modules]
    return Unit(
        name=name,
        layer=layer,
        modules=modules,
        num_bytes=sum(num_bytes[weight] for weight in weights),
        num_int8_bytes=sum(
            rows * (columns + SCALE_BYTES) for rows, columns in (shapes[w] for w in weights)
        ),
    )
