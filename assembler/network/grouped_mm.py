"""Grouped matrix products for experts: each group of sorted rows has its own matrix.

Letters at the end of a tensor's name: S rows in the order of their groups, G groups, I inputs, O
outputs.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped_linear(x_SI: Tensor, weights_OI: Sequence[Tensor], counts_G: Tensor) -> Tensor:
    """Multiply each group's rows of [S, I] by its weight's transpose; return [S, O].

    The first group has the first `counts_G[0]` rows, and so on. No group costs more than its own
    rows. Every weight is part of the graph, also the weight of an empty group. So the graph is
    the same on every rank. Computes in autocast's dtype where autocast is on.
    """
    dtype = computing_dtype(x_SI)
    weights = [weight.to(dtype) for weight in weights_OI]
    y_SO: Tensor = _GroupedLinear.apply(  # type: ignore[no-untyped-call]
        x_SI.to(dtype), counts_G, *weights
    )
    return y_SO


def computing_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which a matrix product of `x` is computed here."""
    device_type = x.device.type
    enabled = torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if enabled else x.dtype


class _GroupedLinear(torch.autograd.Function):
    """Save only what the gradients need: no inputs of frozen weights, no copy of any weight."""

    @staticmethod
    def forward(ctx: Any, x_SI: Tensor, counts_G: Tensor, *weights_OI: Tensor) -> Tensor:
        ctx.trains = any(ctx.needs_input_grad[2:])
        ctx.save_for_backward(counts_G, x_SI if ctx.trains else None, *weights_OI)
        return _product(x_SI, weights_OI, counts_G, transposed=True)

    @staticmethod
    def backward(ctx: Any, grad_SO: Tensor) -> tuple[Tensor | None, ...]:
        counts_G, x_SI, *weights_OI = ctx.saved_tensors
        grad_x_SI: Tensor | None = None
        grads_OI: tuple[Tensor | None, ...] = (None,) * len(weights_OI)
        if ctx.needs_input_grad[0]:
            grad_x_SI = _product(grad_SO, weights_OI, counts_G, transposed=False)
        if ctx.trains:
            grads_OI = _weight_gradients(grad_SO, x_SI, counts_G)
        return grad_x_SI, None, *grads_OI


def _product(
    rows: Tensor, matrices: Sequence[Tensor], counts_G: Tensor, *, transposed: bool
) -> Tensor:
    """Multiply the rows of each group by its matrix, or by the matrix transposed."""
    if _has_grouped_gemm(rows):
        stacked = torch.stack(list(matrices))
        return F.grouped_mm(rows, stacked.mT if transposed else stacked, offs=_ends(counts_G))
    out = rows.new_empty(len(rows), matrices[0].shape[0 if transposed else 1])
    counts = counts_G.tolist()
    groups = zip(torch.split(rows, counts), torch.split(out, counts), matrices, strict=True)
    for group, target, matrix in groups:
        torch.mm(group, matrix.mT if transposed else matrix, out=target)
    return out


def _weight_gradients(grad_SO: Tensor, x_SI: Tensor, counts_G: Tensor) -> tuple[Tensor, ...]:
    """Return the gradient [O, I] of each group's weight."""
    if _has_grouped_gemm(x_SI):
        return F.grouped_mm(grad_SO.mT, x_SI, offs=_ends(counts_G)).unbind()
    counts = counts_G.tolist()
    groups = zip(torch.split(grad_SO, counts), torch.split(x_SI, counts), strict=True)
    return tuple(grad.mT @ x for grad, x in groups)


def _has_grouped_gemm(x: Tensor) -> bool:
    # On other devices torch's kernel is a loop, and it requires a copy of the weights.
    return x.is_cuda and x.dtype == torch.bfloat16


def _ends(counts_G: Tensor) -> Tensor:
    """Return the end of each group's rows [G]."""
    return counts_G.cumsum(0).to(torch.int32)
