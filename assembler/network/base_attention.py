"""Attention for transformers' decoders: torch's fused kernel, or the plain definition.

On a CPU the plain definition trains short texts at four times the speed, see
`assembler.network.attention`. Letters at the end of a tensor's name: B batch, T tokens, S visible
keys, H query heads, G key-value heads, C head width.
"""

from typing import Any

from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from assembler.network.attention import PLAIN_TOKENS, plain
from registry.checkpoints.architecture import Architecture

NAME = "nexusmix"


def name_for(a: Architecture) -> str:
    """Return the name under which transformers finds the attention for a network."""
    # torch's fused kernel knows no soft caps, and transformers leaves them out without a word.
    return "eager" if a.base.soft_caps else NAME


def attend(
    module: nn.Module,
    query_BHTC: Tensor,
    key_BGSC: Tensor,
    value_BGSC: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Return the attended values [B, T, H, C]. Without a mask, attention is causal."""
    num_tokens = query_BHTC.shape[2]
    is_short = num_tokens == key_BGSC.shape[2] <= PLAIN_TOKENS
    trains = query_BHTC.requires_grad and not query_BHTC.is_cuda
    if not (is_short and trains and attention_mask is None):
        return sdpa_attention_forward(
            module, query_BHTC, key_BGSC, value_BGSC, attention_mask, scaling=scaling, **rest
        )
    out_BHTC = plain(query_BHTC, key_BGSC, value_BGSC, scaling=scaling)
    return out_BHTC.transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
