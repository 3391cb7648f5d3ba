"""BAM's attention experts as one wide attention: its heads are theirs, side by side.

Scaling an expert's heads before the output projection is scaling its output, so one kernel and one
cache serve a whole mixture. Checkpoints keep experts apart; here they are put together. Letters at
the end of a tensor's name: N experts, H heads of the wide attention.
"""

import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from registry.architecture import Architecture

EXPERT_TENSOR = re.compile(
    r"(?P<attention>.*\.self_attn)\.experts\.(?P<expert>\d+)\.(?P<part>[qkvo]_proj\.weight)"
)


def num_heads(a: Architecture) -> int:
    return a.num_experts * a.num_attention_heads


def num_key_value_heads(a: Architecture) -> int:
    return a.num_key_value_heads * (1 if _shares_kv(a) else a.num_experts)


def expert_of_head(a: Architecture) -> Tensor:
    """The number of the expert [H] that each query head belongs to.

    Kernels give contiguous query heads to one key-value head. With keys of their own, experts
    follow one another; with shared keys, each key-value head is followed by its heads of all.
    """
    experts_N = torch.arange(a.num_experts)
    if not _shares_kv(a):
        return experts_N.repeat_interleave(a.num_attention_heads)
    heads_per_group = a.num_attention_heads // a.num_key_value_heads
    return experts_N.repeat_interleave(heads_per_group).repeat(a.num_key_value_heads)


def widen(weights: Iterable[tuple[str, Tensor]], a: Architecture) -> Iterator[tuple[str, Tensor]]:
    """The same weights with those of attention experts joined, named as of one attention.

    Only tensors of which some experts are still to come are held. Raises ValueError when they do
    not come.
    """
    held: dict[str, dict[int, Tensor]] = {}
    for name, tensor in weights:
        found = EXPERT_TENSOR.fullmatch(name)
        if found is None:
            yield name, tensor
            continue
        wide = f"{found['attention']}.{found['part']}"
        parts = held.setdefault(wide, {})
        parts[int(found["expert"])] = tensor
        if parts.keys() == set(range(a.num_experts)):
            del held[wide]
            yield wide, _join([parts[i] for i in range(a.num_experts)], a, is_output="o_p" in wide)
    if held:
        raise ValueError(f"some of {a.num_experts} experts lack tensors of {sorted(held)}")


def _join(parts: list[Tensor], a: Architecture, *, is_output: bool) -> Tensor:
    """One tensor of all experts, its heads in the order of `expert_of_head`."""
    heads_axis = 1 if is_output else 0
    groups = a.num_key_value_heads
    grouped = [torch.unflatten(part, heads_axis, (groups, -1)) for part in parts]
    expert_axis = heads_axis + 1 if _shares_kv(a) else heads_axis
    return torch.stack(grouped, expert_axis).flatten(heads_axis, heads_axis + 2)


def _shares_kv(a: Architecture) -> bool:
    return a.attention == "experts-shared-kv"
