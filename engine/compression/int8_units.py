"""What of a checkpoint may be int8, piece by piece, and the checkpoint that comes of it.

A unit is what vLLM can give a precision of its own: what it fuses has one. Free of torch.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from registry import cpu_features
from registry.architecture import Architecture, Shape
from registry.errors import InvalidCheckpoint
from registry.int8_config import (
    CONFIG_FIELD,
    LARGEST,
    LARGEST_WITHOUT_VNNI,
    SCALE,
    WEIGHT,
    int8_modules,
    largest_weight,
    quantization_config,
)
from registry.manifests import Manifest, TensorEntry

# What serves: kernels differ. `cpu` is any x86 processor, `cpu-vnni` one with instructions for
# int8. No CPU kernel of vLLM 0.32 multiplies routed experts in int8 but one that needs AMX.
Target = Literal["cpu", "cpu-vnni", "gpu"]
LARGEST_WEIGHT: dict[Target, int] = {
    "cpu": LARGEST_WITHOUT_VNNI,
    "cpu-vnni": LARGEST,
    "gpu": LARGEST,
}

SCALE_BYTES = 4
FFN = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Unit:
    """Linear layers that are int8 together, or not at all.

    `layer` is the block that they stand in, of the head one past the last. `num_bytes` as they are,
    `num_int8_bytes` as they would be, scales counted.
    """

    name: str
    layer: int
    modules: tuple[str, ...]
    num_bytes: int
    num_int8_bytes: int

    @property
    def num_bytes_saved(self) -> int:
        return self.num_bytes - self.num_int8_bytes


def units(manifest: Manifest, target: Target) -> tuple[Unit, ...]:
    """The units of a checkpoint in the order of the network, but those that are int8 already, or
    were removed.

    Raises InvalidCheckpoint for a quantization that is not supported.
    """
    done = int8_modules(manifest.config)
    num_bytes = {name: entry.num_bytes for name, entry in manifest.tensors.items()}
    found = units_of(manifest.architecture, num_bytes, target)
    return tuple(unit for unit in found if done.isdisjoint(unit.modules))


def units_of(a: Architecture, num_bytes: Mapping[str, int], target: Target) -> tuple[Unit, ...]:
    """The units of a network in its order; `num_bytes` are those of its tensors, none of them
    int8."""
    shapes = a.tensor_shapes()
    return tuple(
        _unit(name, layer, modules, shapes, num_bytes)
        for name, layer, modules in _groups(a, target)
        if modules[0] + WEIGHT in num_bytes
    )


def modules(units: Iterable[Unit]) -> list[str]:
    """Names of all their linear layers."""
    return [module for unit in units for module in unit.modules]


def with_int8(
    manifest: Manifest, weights: Mapping[str, tuple[TensorEntry, TensorEntry]], *, target: Target
) -> Manifest:
    """The checkpoint with the given layers in int8: of each its integers and its scales, stored."""
    made: dict[str, TensorEntry] = {}
    for name, entry in manifest.tensors.items():
        module = name.removesuffix(WEIGHT)
        if module in weights:
            made[name], made[module + SCALE] = weights[module]
        else:
            made[name] = entry
    named = int8_modules(manifest.config) | weights.keys()
    largest = max(LARGEST_WEIGHT[target], largest_weight(manifest.config))
    said = quantization_config(named, largest_weight=largest)
    config = manifest.config | {CONFIG_FIELD: said}
    return replace(manifest, config=config, tensors=made)


def num_bytes(manifest: Manifest, chosen: Iterable[Unit]) -> int:
    """Of the checkpoint's tensors once the chosen units are int8."""
    return manifest.num_bytes - sum(unit.num_bytes_saved for unit in chosen)


def check_processor(manifest: Manifest) -> None:
    """Raises InvalidCheckpoint when this processor would compute its int8 layers wrongly, which
    nothing else would tell."""
    largest = largest_weight(manifest.config)
    if largest > LARGEST_WITHOUT_VNNI and cpu_features.saturates_int8():
        raise InvalidCheckpoint(
            f"int8 weights up to {largest} overflow on this processor, which has no VNNI;"
            " compress for the target 'cpu'"
        )


def _groups(a: Architecture, target: Target) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    for layer in range(a.num_hidden_layers):
        block = f"model.layers.{layer}."
        attention, mlp = f"{block}self_attn.", f"{block}mlp"
        if a.num_experts == 0 or a.attention == "average":
            yield f"{attention}qkv_proj", layer, tuple(f"{attention}{p}_proj" for p in "qkv")
            yield f"{attention}o_proj", layer, (f"{attention}o_proj",)
        # Attention experts stay as they are: vLLM sees one wide attention, whose output
        # projection has one scale for the outputs of all of them.
        if a.num_experts == 0:
            yield mlp, layer, _ffn(mlp)
            continue
        if a.shared_expert:
            yield f"{mlp}.shared_expert", layer, _ffn(f"{mlp}.shared_expert")
        if target == "gpu":
            experts = [f"{mlp}.experts.{number}" for number in range(a.num_experts)]
            modules = tuple(module for expert in experts for module in _ffn(expert))
            yield f"{mlp}.experts", layer, modules
    if not a.tie_word_embeddings:
        yield "lm_head", a.num_hidden_layers, ("lm_head",)


def _ffn(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in FFN)


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
