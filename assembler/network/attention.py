"""Causal attention of the reference network: one per block, or BAM's mixture of several.

Letters at the end of a tensor's name: B batch, T tokens, S visible keys, D hidden, H heads, C head
width, A attention experts, K experts per token.
"""

from collections.abc import Hashable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry.checkpoints.architecture import Architecture

Rotation = tuple[Tensor, Tensor]

# The longest sequence that a CPU trains with the plain definition of attention. Forward and
# backward together take it 2.4 ms where torch's fused kernel takes 11 (batch 4, 9 heads of 64, 128
# tokens, one core).
PLAIN_TOKENS = 512


class Attention(nn.Module):
    """Grouped-query attention: contiguous groups of query heads share key-value heads."""

    def __init__(self, a: Architecture, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, a.head_dim
        self.q_proj, self.o_proj = _query(a), _output(a)
        self.k_proj, self.v_proj = _key_value(a), _key_value(a)

    def forward(self, x_BTD: Tensor, rotation: Rotation, *, cache: "Cache | None") -> Tensor:
        """Map normed states [B, T, D] to attention outputs [B, T, D]."""
        key_BHSC, value_BHSC = _keys_values(self, x_BTD, rotation, cache=cache, at=self.layer)
        return _attend(self, x_BTD, key_BHSC, value_BHSC, rotation)


class AttentionMixture(nn.Module):
    """Compute `sum_j g_j(x) attention_j(x)`, `g = softmax(x W)` (BAM, arXiv 2408.08274, section
    3.2).

    By default every token uses every expert. With `num_attention_experts_per_tok` it uses those
    with the K largest gates, not renormalized. With `experts-shared-kv` the experts have their own
    queries and outputs but share keys and values.
    """

    def __init__(self, a: Architecture, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, a.head_dim
        self.num_experts_per_tok = a.num_attention_experts_per_tok or a.num_experts
        self.disabled = list(a.disabled_experts)
        self.shares_kv = a.attention == "experts-shared-kv"
        if self.shares_kv:
            self.k_proj, self.v_proj = _key_value(a), _key_value(a)
        self.experts = nn.ModuleList(_Expert(a) for _ in range(a.num_experts))
        self.gate = nn.Linear(a.hidden_size, a.num_experts, bias=False)

    def forward(self, x_BTD: Tensor, rotation: Rotation, *, cache: "Cache | None") -> Tensor:
        """Map normed states [B, T, D] to mixed attention outputs [B, T, D]."""
        g_BTA = self._gates(x_BTD)
        shared = None
        if self.shares_kv:
            shared = _keys_values(self, x_BTD, rotation, cache=cache, at=self.layer)
        out_BTD = torch.zeros_like(x_BTD)
        for number, expert in enumerate(cast(Iterable[_Expert], self.experts)):
            at = (self.layer, number)
            keys, values = shared or _keys_values(expert, x_BTD, rotation, cache=cache, at=at)
            attended_BTD = _attend(expert, x_BTD, keys, values, rotation)
            out_BTD = out_BTD + g_BTA[..., number, None] * attended_BTD
        return out_BTD

    def _gates(self, x_BTD: Tensor) -> Tensor:
        """Return the gate [B, T, A] of each expert, zero for experts that are not selected."""
        logits_BTA = self.gate(x_BTD).float()
        if self.disabled:
            disabled = torch.tensor(self.disabled, device=x_BTD.device)
            logits_BTA = logits_BTA.index_fill(-1, disabled, -torch.inf)
        g_BTA: Tensor = logits_BTA.softmax(-1)
        if self.num_experts_per_tok < len(self.experts):
            kept_BTK, chosen_BTK = g_BTA.topk(self.num_experts_per_tok)
            g_BTA = torch.zeros_like(g_BTA).scatter(-1, chosen_BTK, kept_BTK)
        return g_BTA.to(x_BTD.dtype)


class _Expert(nn.Module):
    """The weights of one attention expert; `AttentionMixture` runs them."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.head_dim = a.head_dim
        self.q_proj, self.o_proj = _query(a), _output(a)
        if a.attention == "experts":
            self.k_proj, self.v_proj = _key_value(a), _key_value(a)


class Cache:
    """Keys and values of the tokens read so far, one pair per block or attention expert."""

    def __init__(self) -> None:
        self._pairs: dict[Hashable, tuple[Tensor, Tensor]] = {}

    @property
    def num_tokens(self) -> int:
        """The number of tokens read so far."""
        return next((keys.shape[2] for keys, _ in self._pairs.values()), 0)

    def extend(self, at: Hashable, key_BHTC: Tensor, value_BHTC: Tensor) -> tuple[Tensor, Tensor]:
        """Append to the pair stored under `at`; return all its keys and values [B, H, S, C]."""
        if at in self._pairs:
            keys, values = self._pairs[at]
            key_BHTC = torch.cat([keys, key_BHTC], 2)
            value_BHTC = torch.cat([values, value_BHTC], 2)
        self._pairs[at] = key_BHTC, value_BHTC
        return key_BHTC, value_BHTC


def rope(positions_T: Tensor, *, head_dim: int, theta: float) -> Rotation:
    """Return cosines and sines [T, C] of rotary embeddings; the second half repeats the first."""
    exponents = torch.arange(0, head_dim, 2, device=positions_T.device).float() / head_dim
    angles = torch.outer(positions_T.float(), theta**-exponents).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x_BHTC: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the pairs (c, c + C/2), as Hugging Face checkpoints do."""
    cos_TC, sin_TC = (r.to(x_BHTC.dtype) for r in rotation)
    first, second = x_BHTC.chunk(2, -1)
    return x_BHTC * cos_TC + torch.cat([-second, first], -1) * sin_TC


def causal_mask(num_new: int, num_seen: int, *, device: torch.device) -> Tensor:
    """Return a mask [T, S], true where the last T of S tokens may attend."""
    ones = torch.ones(num_new, num_seen, dtype=torch.bool, device=device)
    return ones.tril(num_seen - num_new)


def _query(a: Architecture) -> nn.Linear:
    return nn.Linear(a.hidden_size, a.num_attention_heads * a.head_dim, bias=False)


def _output(a: Architecture) -> nn.Linear:
    return nn.Linear(a.num_attention_heads * a.head_dim, a.hidden_size, bias=False)


def _key_value(a: Architecture) -> nn.Linear:
    return nn.Linear(a.hidden_size, a.num_key_value_heads * a.head_dim, bias=False)


def _keys_values(
    weights: Attention | AttentionMixture | _Expert,
    x_BTD: Tensor,
    rotation: Rotation,
    *,
    cache: Cache | None,
    at: Hashable,
) -> tuple[Tensor, Tensor]:
    """Return keys and values [B, H, S, C] of the cached tokens, if any, and of these tokens."""
    key_BHTC = rotate(_heads(weights.k_proj(x_BTD), weights.head_dim), rotation)
    value_BHTC = _heads(weights.v_proj(x_BTD), weights.head_dim)
    return (key_BHTC, value_BHTC) if cache is None else cache.extend(at, key_BHTC, value_BHTC)


def _attend(
    weights: Attention | _Expert,
    x_BTD: Tensor,
    key_BHSC: Tensor,
    value_BHSC: Tensor,
    rotation: Rotation,
) -> Tensor:
    """Return the attention output [B, T, D] of these tokens over the given keys and values."""
    query_BHTC = rotate(_heads(weights.q_proj(x_BTD), weights.head_dim), rotation)
    num_new, num_seen = query_BHTC.shape[2], key_BHSC.shape[2]
    is_prefill = num_new == num_seen
    if query_BHTC.requires_grad and is_prefill and num_new <= PLAIN_TOKENS and not x_BTD.is_cuda:
        out_BHTC = plain(query_BHTC, key_BHSC, value_BHSC)
    else:
        mask_TS = None if is_prefill else causal_mask(num_new, num_seen, device=x_BTD.device)
        out_BHTC = F.scaled_dot_product_attention(
            query_BHTC,
            key_BHSC,
            value_BHSC,
            attn_mask=mask_TS,
            is_causal=is_prefill,
            enable_gqa=True,
        )
    return cast(Tensor, weights.o_proj(out_BHTC.transpose(1, 2).flatten(2)))


def plain(
    query_BHTC: Tensor, key_BGTC: Tensor, value_BGTC: Tensor, *, scaling: float | None = None
) -> Tensor:
    """Compute causal attention by its definition, with G key-value heads for H query heads.

    Scores are scaled by the inverse root of the head width if nothing else is given.
    """
    (_, _, num_tokens, head_dim), num_groups = query_BHTC.shape, key_BGTC.shape[1]
    scaling = head_dim**-0.5 if scaling is None else scaling
    # The query heads of a group are stacked along the token axis, so one product serves them all.
    stacked_BGXC = torch.unflatten(query_BHTC * scaling, 1, (num_groups, -1)).flatten(2, 3)
    scores_BGXT = stacked_BGXC @ key_BGTC.mT
    mask_TT = torch.full((num_tokens, num_tokens), -torch.inf, dtype=scores_BGXT.dtype).triu(1)
    # Added in place: other ways of masking take longer than the products.
    scores_BGXT += mask_TT.repeat(stacked_BGXC.shape[2] // num_tokens, 1)
    p_BGXT = scores_BGXT.softmax(-1).to(value_BGTC.dtype)
    out_BGXC: Tensor = p_BGXT @ value_BGTC
    return out_BGXC.view_as(query_BHTC)


def _heads(x_BTX: Tensor, head_dim: int) -> Tensor:
    """Split the last axis into heads: [B, T, H * C] to [B, H, T, C]."""
    return x_BTX.view(*x_BTX.shape[:2], -1, head_dim).transpose(1, 2)
