"""Round a model to int8 for comparisons: AbsMax (arXiv 2311.01544, section 4.3)."""

import torch
from torch import Tensor, nn

LEVELS = 127


@torch.no_grad()
def round_matrices(model: nn.Module) -> None:
    """Round every matrix in place to eight bits, with one scale for each row."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.copy_(absmax(parameter))


def absmax(weight: Tensor) -> Tensor:
    """Return the nearest of 255 levels for each number of each row [rows, columns]."""
    scale = weight.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / LEVELS
    return (weight / scale).round() * scale
