"""A compressed copy of a model, for comparisons: AbsMax int8 (arXiv 2311.01544, section 4.3)."""

import torch
from torch import Tensor, nn

LEVELS = 127


@torch.no_grad()
def round_matrices(model: nn.Module) -> None:
    """Every matrix to what eight bits can say, in place: one scale for each row."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.copy_(absmax(parameter))


def absmax(weight: Tensor) -> Tensor:
    """The nearest of 255 levels of each row [rows, columns]."""
    scale = weight.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / LEVELS
    return (weight / scale).round() * scale
