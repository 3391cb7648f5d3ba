"""Feed-forward networks of the reference network: dense, and a mixture of experts with its router.

Letters at the end of a tensor's name: T tokens of the whole batch, D hidden, F FFN inner, N routed
experts, K experts per token, S the T x K rows sorted by expert, M domain-embedding width.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assembler.network.grouped_mm import grouped_linear
from assembler.network.int8_linear import Int8Linear
from registry.bases.base import FUSED_FFN, Activation
from registry.checkpoints.architecture import Architecture

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class FeedForward(nn.Module):
    """A gated FFN on any leading axes, `size` wide or as the architecture says.

    Some bases keep gate and inner weight in one tensor.
    """

    def __init__(self, a: Architecture, *, size: int | None = None) -> None:
        super().__init__()
        size = a.intermediate_size if size is None else size
        self.activation, self.is_fused = ACTIVATIONS[a.base.activation], a.base.ffn is FUSED_FFN
        if self.is_fused:
            self.gate_up_proj = nn.Linear(a.hidden_size, 2 * size, bias=False)
        else:
            self.gate_proj = nn.Linear(a.hidden_size, size, bias=False)
            self.up_proj = nn.Linear(a.hidden_size, size, bias=False)
        self.down_proj = nn.Linear(size, a.hidden_size, bias=False)

    @property
    def inputs(self) -> tuple[nn.Module, ...]:
        """The layers that read the FFN's input."""
        return (self.gate_up_proj,) if self.is_fused else (self.gate_proj, self.up_proj)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [..., D] to outputs [..., D]."""
        return cast(Tensor, self.down_proj(self.gate(*(linear(x) for linear in self.inputs))))

    def gate(self, *projected: Tensor) -> Tensor:
        """Return the inner states [..., F] of what the layers in `inputs` gave."""
        gate, up = projected[0].chunk(2, -1) if self.is_fused else projected
        return self.activation(gate) * up


class MoE(nn.Module):
    """The mixture of experts of Nexus (arXiv 2408.15901, section 3), BTX and BAM, and our variant.

    `p` is the softmax over all routed experts. Each token takes its K largest, renormalized only
    with `norm_topk_prob`. With `combine` = `sum` (the papers) the output is
    `shared(x) + sum_K p_k expert_k(x)`, without a shared expert in BTX and BAM. With `convex`
    (ours) the shared expert is weighted by `1 - sum_K p_k`, so that pretrained experts keep their
    scale.
    """

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.num_experts, self.num_experts_per_tok = a.num_experts, a.num_experts_per_tok
        self.combine, self.norm_topk_prob = a.combine, a.norm_topk_prob
        self.gate = Router(a)
        self.shared_expert = FeedForward(a) if a.shared_expert else None
        self.experts = Experts({str(i): FeedForward(a) for i in range(a.num_experts)})

    def forward(self, x_TD: Tensor, domain_embeddings: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map inputs [T, D] to outputs [T, D] and auxiliary logits [T, N] (see `Router`)."""
        logits_TN, aux_logits_TN = self.gate(x_TD, domain_embeddings)
        p_TK, expert_TK = logits_TN.float().softmax(-1).topk(self.num_experts_per_tok)
        if self.norm_topk_prob:
            p_TK = p_TK / p_TK.sum(-1, keepdim=True)
        p_TK = p_TK.to(x_TD.dtype)
        y_TD = self._shared(x_TD, p_TK)
        routed_TKD = self._routed(x_TD, expert_TK)
        # Added one by one: a sum over an axis as short as K takes longer than all its terms.
        for p_T, routed_TD in zip(p_TK.unbind(1), routed_TKD.unbind(1), strict=True):
            y_TD = torch.addcmul(y_TD, p_T[:, None], routed_TD)
        return y_TD, aux_logits_TN

    def _shared(self, x_TD: Tensor, p_TK: Tensor) -> Tensor:
        """Return the shared expert's part of the output [T, D]; zeros without a shared expert."""
        if self.shared_expert is None:
            return torch.zeros_like(x_TD)
        shared_TD = cast(Tensor, self.shared_expert(x_TD))
        if self.combine == "convex":
            shared_TD = (1 - p_TK.sum(-1, keepdim=True)) * shared_TD
        return shared_TD

    def _routed(self, x_TD: Tensor, expert_TK: Tensor) -> Tensor:
        """Return the outputs [T, K, D] of each token's experts.

        Rows are sorted by expert, so that each expert computes its own tokens only.
        """
        expert_S = expert_TK.flatten()
        order = expert_S.argsort(stable=True)
        # Not bincount: on a GPU it waits for all earlier work, to read the largest number.
        counts_N = expert_S.new_zeros(self.num_experts)
        counts_N = counts_N.scatter_add(0, expert_S, torch.ones_like(expert_S))
        x_SD = x_TD.index_select(0, order // self.num_experts_per_tok)
        y_SD = cast(Tensor, self.experts(x_SD, counts_N))
        return y_SD.index_select(0, order.argsort()).view(*expert_TK.shape, -1)


class Experts(nn.ModuleDict):
    """The routed experts, each a gated FFN, by their numbers."""

    def forward(self, x_SD: Tensor, counts_N: Tensor) -> Tensor:
        """Apply each expert to its rows of [S, D]; return outputs [S, D].

        The first expert has the first `counts_N[0]` rows, and so on.
        """
        experts = list(cast(Iterable[FeedForward], self.values()))
        layers = [(*expert.inputs, expert.down_proj) for expert in experts]
        if any(isinstance(layer, Int8Linear) for own in layers for layer in own):
            rows = torch.split(x_SD, counts_N.tolist())
            return torch.cat([e(expert_SD) for e, expert_SD in zip(experts, rows, strict=True)])
        *inputs, downs = zip(*([layer.weight for layer in own] for own in layers), strict=True)
        projected = [grouped_linear(x_SD, weights, counts_N) for weights in inputs]
        return grouped_linear(experts[0].gate(*projected), downs, counts_N)


class Router(nn.Module):
    """The router of one mixture: one row per expert.

    With `nexus` it also holds the projection from which the rows are computed. With `mlp` a hidden
    layer precedes the rows: `rows relu(W x)` (ModuleFormer, arXiv 2306.04640, section 3.1).
    """

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        width = a.router_hidden_size if a.router == "mlp" else a.hidden_size
        self.weight = nn.Parameter(torch.zeros(a.num_experts, width))
        if a.router == "nexus":
            w1 = nn.Linear(a.domain_embedding_size, 2 * a.hidden_size, bias=False)
            w2 = nn.Linear(a.hidden_size, a.hidden_size, bias=False)
            self.projection = nn.ModuleList([w1, w2])
        self.hidden = nn.Linear(a.hidden_size, width, bias=False) if a.router == "mlp" else None
        self.disabled = list(a.disabled_experts)

    def forward(self, x_TD: Tensor, domain_embeddings: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the logits [T, N] for routing, and equal auxiliary logits [T, N].

        With `domain_embeddings` [N, M] the rows come from the projection. No gradient flows from
        the auxiliary logits to the tokens: auxiliary losses on routing would otherwise bend the
        states of every trained layer before the router.
        """
        rows_ND = self.weight if domain_embeddings is None else self.project(domain_embeddings)
        logits_TN = self._logits(x_TD, rows_ND)
        aux_logits_TN = self._logits(x_TD.detach(), rows_ND) if x_TD.requires_grad else logits_TN
        return logits_TN, aux_logits_TN

    def _logits(self, x_TD: Tensor, rows_ND: Tensor) -> Tensor:
        """Return the logits [T, N] of the rows; disabled experts get minus infinity."""
        if self.hidden is not None:
            x_TD = F.relu(self.hidden(x_TD))
        logits_TN = F.linear(x_TD, rows_ND)
        if not self.disabled:
            return logits_TN
        disabled = torch.tensor(self.disabled, device=x_TD.device)
        return logits_TN.index_fill(1, disabled, -torch.inf)

    def project(self, embeddings_NM: Tensor) -> Tensor:
        """Return the router rows [N, D] of domain embeddings [N, M]."""
        w1, w2 = (cast(nn.Linear, linear).weight for linear in self.projection)
        return project(embeddings_NM, w1, w2)


def project(embeddings_NM: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """Return the router rows [N, D] of domain embeddings: `W2 (swish(a) * b)`, `[a, b] = W1 d`.

    Source: Nexus (arXiv 2408.15901, section 3). Weights of all blocks, stacked on a first axis,
    give the rows of all blocks [L, N, D].
    """
    a_ND, b_ND = (embeddings_NM @ w1.mT).chunk(2, -1)
    return (F.silu(a_ND) * b_ND) @ w2.mT
