"""Outliers of inputs moved into weights, before either is rounded to int8.

Source: SmoothQuant (arXiv 2211.10438, equation 4). Inputs are scaled token by token, so one channel
that is far larger than the others takes their precision from them; divided by a factor that the
weights are multiplied by, it does so less. Factors are rounded to powers of two: products and sums
then stay what they are, bit for bit, in any float dtype whose range they do not leave, so that what
is not int8 loses nothing.

Letters at the end of a tensor's name: S rows, I inputs, R readers, H key-value heads, G query heads
of each, C head width.
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
from engine.compression.int8_units import FFN, Target, Unit
from registry.architecture import Architecture
from registry.int8_config import WEIGHT

# Of equation 4: how much of an outlier goes into the weights; what the paper takes for most models.
MIGRATION_STRENGTH = 0.5


@dataclass(frozen=True)
class Smoothing:
    """Channels between the tensor that makes them and the weights that read them.

    The maker, a norm's weight or a linear layer's, is divided by `divisors`, one for each of its
    outputs; columns of the readers are multiplied by `factors`, one for each input.
    """

    maker: str
    readers: tuple[str, ...]
    divisors: Tensor
    factors: Tensor

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the checkpoint, which is changed where it has a part in this."""
        if name == self.maker:
            return tensor / self.divisors.to(tensor).view(-1, *[1] * (tensor.dim() - 1))
        return tensor * self.factors.to(tensor) if name in self.readers else tensor


@torch.inference_mode()
def smooth(
    network: Network, units: Sequence[Unit], *, target: Target, read: Callable[[], object]
) -> tuple[Smoothing, ...]:
    """Change a network so that its units lose less as int8, and say how.

    `read` has it read some text, with all units in int8: that is when routed experts too show what
    enters each of their layers.
    """
    largest = _largest_inputs(network, units, target=target, read=read)
    made = []
    for maker, readers in _channels(network, units):
        weights = [network.get_parameter(reader + WEIGHT) for reader in readers]
        if readers[0] not in largest:
            continue  # an expert that no token of this text went to
        factors = _factors(largest[readers[0]], torch.stack([w.abs().amax(0) for w in weights]))
        divisors = factors
        if len(factors) > len(network.get_parameter(maker)):
            divisors, factors = _per_key_value_head(factors, network.architecture)
        own = Smoothing(maker, tuple(reader + WEIGHT for reader in readers), divisors, factors)
        for name in (maker, *own.readers):
            parameter = network.get_parameter(name)
            parameter.copy_(own.apply(name, parameter))
        made.append(own)
    return tuple(made)


def _factors(inputs_I: Tensor, weights_RI: Tensor) -> Tensor:
    """Equation 4 of the largest inputs and weights of each channel, to the next power of two; 1 of
    a channel that carries nothing."""
    weights_I = weights_RI.amax(0)
    exponents_I = inputs_I.log2() * MIGRATION_STRENGTH - weights_I.log2() * (1 - MIGRATION_STRENGTH)
    return torch.exp2(exponents_I.round().where(exponents_I.isfinite(), 0))


def _per_key_value_head(factors_I: Tensor, a: Architecture) -> tuple[Tensor, Tensor]:
    """Those of values, and of what is read of them: query heads of one group read the same."""
    factors_HGC = factors_I.view(a.num_key_value_heads, -1, a.head_dim)
    values_HC = factors_HGC.amax(1)
    return values_HC.flatten(), values_HC[:, None].expand_as(factors_HGC).flatten()


def _channels(network: Network, units: Sequence[Unit]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of each tensor that makes channels for nothing but linear layers of one unit: its name, and
    theirs. The norm in front of a mixture's FFNs makes those of its router too, and that of a
    parallel block feeds two units."""
    a = network.architecture
    parameters = {name for name, _ in network.named_parameters()}
    for unit in units:
        for maker, readers in _of_unit(unit, a):
            if maker in parameters:  # and was not removed, and is not int8 itself
                yield maker, readers


def _of_unit(unit: Unit, a: Architecture) -> Iterator[tuple[str, tuple[str, ...]]]:
    block = f"model.layers.{unit.layer}."
    own_norm = not a.parallel_block
    if unit.name == "lm_head":
        yield "model.norm.weight", unit.modules
    elif unit.name.endswith(".qkv_proj"):
        if own_norm:
            yield f"{block}input_layernorm.weight", unit.modules
    elif unit.name.endswith(".o_proj"):
        yield f"{block}self_attn.v_proj.weight", unit.modules
    else:
        if own_norm and a.num_experts == 0:
            yield f"{block}post_attention_layernorm.weight", unit.modules[:2]
        for start in range(0, len(unit.modules), len(FFN)):
            _, up, down = unit.modules[start : start + len(FFN)]
            yield up + WEIGHT, (down,)


def _largest_inputs(
    network: Network, units: Sequence[Unit], *, target: Target, read: Callable[[], object]
) -> Mapping[str, Tensor]:
    """Of each linear layer the largest absolute input in each channel."""
    modules = int8_units.modules(units)
    found: dict[str, Tensor] = {}
    with as_int8(network, modules, target=target), ExitStack() as hooks:
        for name in modules:
            linear = network.get_submodule(name)
            hooks.enter_context(linear.register_forward_pre_hook(partial(_note, found, name)))
        read()
    return found


def _note(found: dict[str, Tensor], name: str, _: torch.nn.Module, inputs: tuple[Any]) -> None:
    x_SI = inputs[0].flatten(0, -2)
    if len(x_SI):
        largest_I = x_SI.abs().amax(0).float()
        found[name] = torch.maximum(found[name], largest_I) if name in found else largest_I
