"""Move outliers of inputs into weights before both are rounded to int8.

Source: SmoothQuant (arXiv 2211.10438, equation 4). Inputs are scaled token by token, so one very
large channel costs the other channels their precision. Dividing that channel by a factor, and
multiplying the weights by it, reduces the loss. Factors are rounded to powers of two: products and
sums in floating point then keep every bit, as long as they stay in the dtype's range, and layers
that are not int8 lose nothing.

Suffixes of tensor names: S rows, I inputs, R readers, H key-value heads, G query heads of each, C
head width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from assembler.network.int8_linear import as_int8
from assembler.network.model import Network
from engine.compression import int8_units
from engine.compression.int8_units import Target, Unit
from registry.checkpoints import tensor_names
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.tensor_names import WEIGHT

# Alpha of equation 4, the share of an outlier that moves into the weights: the paper's usual value.
MIGRATION_STRENGTH = 0.5


@dataclass(frozen=True)
class Smoothing:
    """Factors of the channels between one producing tensor and the weights that read them.

    The producer is the weight of a norm or of a linear layer; its outputs are divided by
    `divisors`. The columns of the readers are multiplied by `factors`, one for each input.
    """

    producer: str
    readers: tuple[str, ...]
    divisors: Tensor
    factors: Tensor

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor of the checkpoint, scaled if it is the producer or a reader."""
        if name == self.producer:
            return tensor / self.divisors.to(tensor).view(-1, *[1] * (tensor.dim() - 1))
        return tensor * self.factors.to(tensor) if name in self.readers else tensor


@torch.inference_mode()
def smooth(
    network: Network, units: Sequence[Unit], *, target: Target, read: Callable[[], object]
) -> tuple[Smoothing, ...]:
    """Scale a network's tensors so that its units lose less in int8; return the factors.

    `read` must run the network over some text. It runs with all units in int8, since only then the
    layers of routed experts are called one by one and their inputs can be seen.
    """
    largest = _largest_inputs(network, units, target=target, read=read)
    made = []
    for producer, readers in _channels(network, units):
        weights = [network.get_parameter(reader + WEIGHT) for reader in readers]
        if readers[0] not in largest:
            continue  # an expert to which no token of this text was routed
        factors = _factors(largest[readers[0]], torch.stack([w.abs().amax(0) for w in weights]))
        divisors = factors
        if len(factors) > len(network.get_parameter(producer)):
            divisors, factors = _per_key_value_head(factors, network.architecture)
        smoothing = Smoothing(
            producer, tuple(reader + WEIGHT for reader in readers), divisors, factors
        )
        for name in (producer, *smoothing.readers):
            parameter = network.get_parameter(name)
            parameter.copy_(smoothing.apply(name, parameter))
        made.append(smoothing)
    return tuple(made)


def _factors(inputs_I: Tensor, weights_RI: Tensor) -> Tensor:
    """Return equation 4 of the largest inputs and weights of each channel [I], rounded to powers of
    two; 1 for a channel that is always zero."""
    weights_I = weights_RI.amax(0)
    exponents_I = inputs_I.log2() * MIGRATION_STRENGTH - weights_I.log2() * (1 - MIGRATION_STRENGTH)
    return torch.exp2(exponents_I.round().where(exponents_I.isfinite(), 0))


def _per_key_value_head(factors_I: Tensor, a: Architecture) -> tuple[Tensor, Tensor]:
    """Return the divisors of the values and the factors of their readers.

    The query heads of one group read the same values, so they share one factor.
    """
    factors_HGC = factors_I.view(a.num_key_value_heads, -1, a.head_dim)
    values_HC = factors_HGC.amax(1)
    return values_HC.flatten(), values_HC[:, None].expand_as(factors_HGC).flatten()


def _channels(network: Network, units: Sequence[Unit]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each tensor whose channels only linear layers of one unit read, with these layers.

    Two norms are left out: the one before a mixture's FFNs feeds the router too, and the one of a
    parallel block feeds two units. Other bases than a plain Llama have none: their norms stand in
    other places, and their layers may have biases.
    """
    a = network.architecture
    if not a.is_plain_llama:
        return
    parameters = {name for name, _ in network.named_parameters()}
    for unit in units:
        for producer, readers in _of_unit(unit, a):
            if producer in parameters:  # it was neither removed nor made int8
                yield producer, readers


def _of_unit(unit: Unit, a: Architecture) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the producers of one unit's inputs, each with the modules that read them."""
    has_own_norm = not a.parallel_block
    if unit.name == tensor_names.LM_HEAD:
        yield tensor_names.FINAL_NORM, unit.modules
    elif unit.name.endswith(".qkv_proj"):
        if has_own_norm:
            yield tensor_names.input_norm(unit.layer), unit.modules
    elif unit.name.endswith(".o_proj"):
        yield f"{tensor_names.attention(unit.layer)}.v_proj.weight", unit.modules
    else:
        if has_own_norm and a.num_experts == 0:
            yield tensor_names.ffn_norm(unit.layer), unit.modules[:2]
        for start in range(0, len(unit.modules), len(tensor_names.FFN_PARTS)):
            _, up, down = unit.modules[start : start + len(tensor_names.FFN_PARTS)]
            yield up + WEIGHT, (down,)


def _largest_inputs(
    network: Network, units: Sequence[Unit], *, target: Target, read: Callable[[], object]
) -> Mapping[str, Tensor]:
    """Return for each linear layer the largest absolute input of each channel [I]."""
    modules = int8_units.modules(units)
    largest: dict[str, Tensor] = {}
    with as_int8(network, modules, target=target), ExitStack() as hooks:
        for name in modules:
            linear = network.get_submodule(name)
            hooks.enter_context(linear.register_forward_pre_hook(partial(_note, largest, name)))
        read()
    return largest


def _note(largest: dict[str, Tensor], name: str, _: torch.nn.Module, inputs: tuple[Any]) -> None:
    """Keep the largest inputs of one call, as a forward pre-hook."""
    x_SI = inputs[0].flatten(0, -2)
    if len(x_SI):
        largest_I = x_SI.abs().amax(0).float()
        known_I = largest.get(name, largest_I)
        largest[name] = torch.maximum(known_I, largest_I)
