"""Join BAM's attention experts to one wide attention, whose heads are the heads of all experts.

Scaling an expert's heads before the output projection equals scaling its output. One kernel and one
key-value cache therefore serve a whole mixture. Checkpoints keep the experts apart; this module
joins them when they are loaded. Letters at the end of a tensor's name: N experts, H heads of the
wide attention.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from registry.checkpoints.architecture import Architecture
from registry.checkpoints.tensor_names import split_attention_expert


def num_heads(a: Architecture) -> int:
    """Return the number of query heads of the wide attention."""
    return a.num_experts * a.num_attention_heads


def num_key_value_heads(a: Architecture) -> int:
    """Return the number of key-value heads of the wide attention."""
    return a.num_key_value_heads * (1 if _shares_kv(a) else a.num_experts)


def expert_of_head(a: Architecture) -> Tensor:
    """Return the number of the expert [H] that each query head belongs to.

    Kernels assign contiguous query heads to one key-value head. When experts have their own keys,
    all heads of an expert follow one another. When they share keys, each key-value head has the
    query heads of all experts that use it, expert by expert.
    """
    experts_N = torch.arange(a.num_experts)
    if not _shares_kv(a):
        return experts_N.repeat_interleave(a.num_attention_heads)
    heads_per_group = a.num_attention_heads // a.num_key_value_heads
    return experts_N.repeat_interleave(heads_per_group).repeat(a.num_key_value_heads)


def widen(weights: Iterable[tuple[str, Tensor]], a: Architecture) -> Iterator[tuple[str, Tensor]]:
    """Yield `weights` with attention experts joined, under the names of one attention.

    A tensor is held in memory only until those of all experts have arrived. Raises ValueError when
    some never arrive.
    """
    held: dict[str, dict[int, Tensor]] = {}
    for name, tensor in weights:
        split = split_attention_expert(name)
        if split is None:
            yield name, tensor
            continue
        attention, number, part = split
        joined_name = f"{attention}.{part}"
        parts = held.setdefault(joined_name, {})
        parts[number] = tensor
        if parts.keys() == set(range(a.num_experts)):
            del held[joined_name]
            ordered = [parts[i] for i in range(a.num_experts)]
            yield joined_name, _join(ordered, a, is_output="o_p" in joined_name)
    if held:
        raise ValueError(f"some of {a.num_experts} experts lack tensors of {sorted(held)}")


def _join(parts: list[Tensor], a: Architecture, *, is_output: bool) -> Tensor:
    """Join one tensor of each expert, heads in the order of `expert_of_head`."""
    heads_axis = 1 if is_output else 0
    groups = a.num_key_value_heads
    grouped = [torch.unflatten(part, heads_axis, (groups, -1)) for part in parts]
    expert_axis = heads_axis + 1 if _shares_kv(a) else heads_axis
    return torch.stack(grouped, expert_axis).flatten(heads_axis, heads_axis + 2)


def _shares_kv(a: Architecture) -> bool:
    return a.attention == "experts-shared-kv"
