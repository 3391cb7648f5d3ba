"""Losses of a finetune: next-token cross-entropy and auxiliary losses on routers.

Letters at the end of a tensor's name: L blocks, B batch, T tokens, D hidden, N routed experts, V
vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler.network.grouped_mm import computing_dtype

# Tokens whose logits are held at a time, in the network's dtype: 512 tokens with a vocabulary of
# 49,152 in bfloat16 take 50 MB. Fewer tokens make the products with the head slower.
BLOCK_TOKENS = 512
# Of those, tokens that are converted to float32 at a time, so that they stay in the CPU's cache.
CHUNK_TOKENS = 32
# Vocabulary rows whose gradients are summed at a time, for the same reason.
CHUNK_ROWS = 8192

LOG2_E = math.log2(math.e)


def next_token_loss(
    x_BTD: Tensor,
    head_VD: Tensor,
    *,
    tokens_BT: Tensor,
    divisor: float = 1.0,
    soft_cap: float | None = None,
) -> Tensor:
    """Return the mean cross-entropy, in nats, of each token given the tokens before it.

    `x_BTD` are the network's last states. Logits are divided by `divisor` and limited to
    `soft_cap`, see `Architecture`. The first token of each sequence does not count.
    Gradients are computed together with the loss, chunk by chunk, so that a batch's logits never
    exist as a whole (Liger Kernel, arXiv 2410.10989, section 3.2).
    """
    dtype = computing_dtype(x_BTD)
    states_TD, targets_T = x_BTD[:, :-1].flatten(0, 1), tokens_BT[:, 1:].flatten()
    if divisor != 1:
        states_TD = states_TD / divisor
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        states_TD.to(dtype), head_VD, targets_T, soft_cap
    )
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Compute `cross_entropy(x @ head.T, targets)` in the dtype of x; the mean is float32.

    With a soft cap c, logits become `c tanh(logits / c)` first.
    """

    @staticmethod
    def forward(
        ctx: Any, x_TD: Tensor, head_VD: Tensor, targets_T: Tensor, soft_cap: float | None
    ) -> Tensor:
        needs_x, needs_head, *_ = ctx.needs_input_grad
        weight_VD, total = head_VD.to(x_TD.dtype), x_TD.new_zeros((), dtype=torch.float32)
        grad_x_TD = torch.empty_like(x_TD) if needs_x else None
        grad_head_VD = torch.zeros_like(head_VD) if needs_head else None
        buffer_TV = x_TD.new_empty(min(BLOCK_TOKENS, len(x_TD)), len(head_VD))
        for start in range(0, len(x_TD), BLOCK_TOKENS):
            block = slice(start, start + BLOCK_TOKENS)
            x = x_TD[block]
            logits = torch.mm(x, weight_VD.mT, out=buffer_TV[: len(x)])
            slopes = None if soft_cap is None else _cap(logits, soft_cap)
            total += _to_gradients(logits, targets_T[block, None], mean_of=len(x_TD))
            if slopes is not None:
                logits.mul_(slopes)
            if grad_x_TD is not None:
                torch.mm(logits, weight_VD, out=grad_x_TD[block])
            if grad_head_VD is not None:
                _add_product(grad_head_VD, logits.mT, x)
        ctx.save_for_backward(grad_x_TD, grad_head_VD)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # In place: nothing else uses these tensors, and the head's gradient is as large as the
        # head.
        return *(None if g is None else g.mul_(grad) for g in ctx.saved_tensors), None, None


def _cap(logits_TV: Tensor, soft_cap: float) -> Tensor:
    """Limit logits in place; return the slope of the limit at each of them [T, V]."""
    limited_TV = logits_TV.div_(soft_cap).tanh_()
    slopes_TV = 1 - limited_TV.square()
    limited_TV.mul_(soft_cap)
    return slopes_TV


def _to_gradients(logits_TV: Tensor, targets_T1: Tensor, *, mean_of: int) -> Tensor:
    """Overwrite logits by their gradients; return their part of the mean loss."""
    loss = logits_TV.new_zeros((), dtype=torch.float32)
    # Allocating memory for every chunk would cost as much as the arithmetic.
    scratch_TV = torch.empty_like(logits_TV[:CHUNK_TOKENS], dtype=torch.float32)
    pairs = zip(
        torch.split(logits_TV, CHUNK_TOKENS), torch.split(targets_T1, CHUNK_TOKENS), strict=True
    )
    for logits, targets in pairs:
        p = scratch_TV[: len(logits)].copy_(logits)
        target, largest = p.gather(1, targets), p.amax(1, keepdim=True)
        # exp2 takes a third of the time of exp. Its argument is computed in one pass.
        torch.add(-LOG2_E * largest, p, alpha=LOG2_E, out=p)
        norm = p.exp2_().sum(1, keepdim=True)
        loss += (norm.log() + largest - target).sum() / mean_of
        p.mul_(1 / (mean_of * norm))
        logits.copy_(p.scatter_add_(1, targets, p.new_full(targets.shape, -1 / mean_of)))
    return loss


def _add_product(sum_VD: Tensor, left_VT: Tensor, right_TD: Tensor) -> None:
    """Compute `sum += left @ right`, some rows at a time, to stay in the cache."""
    for first in range(0, len(sum_VD), CHUNK_ROWS):
        rows = slice(first, first + CHUNK_ROWS)
        sum_VD[rows] += left_VT[rows] @ right_TD


def load_balance(
    p_LTN: Tensor, *, mean: Callable[[Tensor], Tensor] = lambda shares_LN: shares_LN
) -> Tensor:
    """Return the load balancing loss `N sum_i f_i P_i`, sum over blocks.

    A block's term is 1 for even routing and N when one expert takes all tokens. f_i is the share of
    tokens that choose expert i first, P_i its mean probability (Switch Transformer, arXiv
    2101.03961, section 2.2, which adds the loss of each layer). For a batch on many processes,
    `mean` averages f over all of them, so that the mean of their losses is the loss of the whole
    batch.
    """
    num_experts = p_LTN.shape[-1]
    chosen_LTN = F.one_hot(p_LTN.argmax(-1), num_experts).float()
    return num_experts * (mean(chosen_LTN.mean(1)) * p_LTN.mean(1)).sum()


def z_loss(routing_LTN: Tensor) -> Tensor:
    """Return `logsumexp(logits)^2`, mean over tokens and sum over blocks, which keeps router logits
    small.

    ST-MoE, arXiv 2202.08906, equation 5; BAM (arXiv 2408.08274) adds the losses of all layers.
    """
    return routing_LTN.logsumexp(-1).square().mean(1).sum()


def domain_loss(routing_LTN: Tensor, labels_T: Tensor, *, weights_T: Tensor, q: float) -> Tensor:
    """Return the loss of routing tokens away from the expert of their text.

    `routing_LTN` are router logits. The loss is the mean over tokens, weighted by `weights_T`, and
    blocks; 0 when all routing goes to that expert. With p the probability of that expert it is
    `(1 - p^q) / q`, generalized cross-entropy (arXiv 1805.07836, equation 6).

    At q = 1 it is the share of routing that goes elsewhere. In a convex mixture p is the expert's
    share of the output, and each lost share costs the same. But a router that is sure of another
    expert learns nothing. At q = 0 it is cross-entropy, which teaches such a router most. Its
    minimum is at calibrated probabilities: where single tokens say little about their domain, it
    wants the router to be unsure.
    """
    labels_LT1 = labels_T[:, None].expand(len(routing_LTN), -1, 1)
    if q == 0:
        # Of a probability, one below 1e-38 would be zero and have no gradient.
        loss_LT = -routing_LTN.log_softmax(-1).gather(-1, labels_LT1).squeeze(-1)
    else:
        p_LT = routing_LTN.softmax(-1).gather(-1, labels_LT1).squeeze(-1)
        # The derivative of p^q is infinite at zero.
        loss_LT = (1 - p_LT.clamp_min(torch.finfo(p_LT.dtype).tiny) ** q) / q
    return (weights_T * loss_LT).mean()


def count_routing(routing_LTN: Tensor, labels_T: Tensor) -> Tensor:
    """Count [N, N] how many tokens of each expert's documents chose each expert first.

    Rows are the experts of the texts (`labels_T`), columns the chosen experts. `routing_LTN` are
    router logits.
    """
    num_experts = routing_LTN.shape[-1]
    pairs_LT = labels_T * num_experts + routing_LTN.argmax(-1) if num_experts else labels_T[:0]
    return pairs_LT.flatten().bincount(minlength=num_experts**2).view(num_experts, num_experts)
