"""A slow, plain definition of every kind of network, as loops over tokens, heads and experts.

It shares no code with `assembler.network.model`. Checkpoints are dictionaries of float32 tensors.
Letters at the end of a tensor's name: T tokens, D hidden, C head width, N experts.
"""

import torch
from torch import Tensor

from registry.checkpoints.architecture import Architecture

State = dict[str, Tensor]


def logits(state: State, a: Architecture, tokens_T: Tensor) -> Tensor:
    """Return the next-token logits [T, V] of one sequence."""
    x_TD = state["model.embed_tokens.weight"][tokens_T]
    for layer in range(a.num_hidden_layers):
        block = _below(state, f"model.layers.{layer}.")
        normed_TD = _norm(x_TD, block["input_layernorm.weight"], a)
        attended_TD = _attention_of(_below(block, "self_attn."), a, normed_TD)
        if not a.parallel_block:
            normed_TD = _norm(x_TD + attended_TD, block["post_attention_layernorm.weight"], a)
        fed_TD = torch.stack([_feed(_below(block, "mlp."), a, x_D) for x_D in normed_TD])
        x_TD = x_TD + attended_TD + fed_TD
    head = "model.embed_tokens.weight" if a.tie_word_embeddings else "lm_head.weight"
    return _norm(x_TD, state["model.norm.weight"], a) @ state[head].T


def _norm(x_TD: Tensor, weight_D: Tensor, a: Architecture) -> Tensor:
    return x_TD / (x_TD.pow(2).mean(-1, keepdim=True) + a.rms_norm_eps).sqrt() * weight_D


def _attention_of(weights: State, a: Architecture, x_TD: Tensor) -> Tensor:
    if "gate.weight" not in weights:
        return _attention(weights, a, x_TD)
    outputs = []
    for expert in range(a.num_experts):
        expert_weights = weights | _below(weights, f"experts.{expert}.")
        outputs.append(_attention(expert_weights, a, x_TD))
    num_chosen = a.num_attention_experts_per_tok or a.num_experts
    mixed = torch.zeros_like(x_TD)
    for t, x_D in enumerate(x_TD):
        for expert, share in _chosen(weights["gate.weight"] @ x_D, a, num_chosen).items():
            mixed[t] += share * outputs[expert][t]
    return mixed


def _attention(weights: State, a: Architecture, x_TD: Tensor) -> Tensor:
    """Compute causal attention head by head, each through its columns of `o_proj`."""
    out_TD = torch.zeros_like(x_TD)
    for head in range(a.num_attention_heads):
        group = head * a.num_key_value_heads // a.num_attention_heads
        head_rows = slice(head * a.head_dim, (head + 1) * a.head_dim)
        group_rows = slice(group * a.head_dim, (group + 1) * a.head_dim)
        query_TC = _rotate(x_TD @ weights["q_proj.weight"][head_rows].T, a)
        key_TC = _rotate(x_TD @ weights["k_proj.weight"][group_rows].T, a)
        value_TC = x_TD @ weights["v_proj.weight"][group_rows].T
        for t, query_C in enumerate(query_TC):
            scores = key_TC[: t + 1] @ query_C / a.head_dim**0.5
            seen_C = scores.softmax(0) @ value_TC[: t + 1]
            out_TD[t] += weights["o_proj.weight"][:, head_rows] @ seen_C
    return out_TD


def _rotate(x_TC: Tensor, a: Architecture) -> Tensor:
    """Rotate dimensions c and c + C/2, as a complex number, by the angle
    `position * theta^(-2c/C)`."""
    half = a.head_dim // 2
    speeds = a.rope_theta ** (-torch.arange(half) * 2 / a.head_dim)
    angles = torch.outer(torch.arange(len(x_TC)).float(), speeds)
    rotated = torch.complex(x_TC[:, :half], x_TC[:, half:]) * torch.exp(1j * angles)
    return torch.cat([rotated.real, rotated.imag], 1)


def _feed(weights: State, a: Architecture, x_D: Tensor) -> Tensor:
    """Compute the FFN, or the mixture of FFNs, of one token."""
    if not a.num_experts:
        return _ffn(weights, x_D)
    router_input = x_D
    if a.router == "mlp":
        router_input = (weights["gate.hidden.weight"] @ x_D).clamp(min=0)
    shares = _chosen(weights["gate.weight"] @ router_input, a, a.num_experts_per_tok)
    if a.norm_topk_prob:
        total = sum(shares.values())
        shares = {expert: share / total for expert, share in shares.items()}
    y_D = torch.zeros_like(x_D)
    for expert, share in shares.items():
        y_D += share * _ffn(_below(weights, f"experts.{expert}."), x_D)
    if a.shared_expert:
        weight = 1 - sum(shares.values()) if a.combine == "convex" else 1
        y_D += weight * _ffn(_below(weights, "shared_expert."), x_D)
    return y_D


def _ffn(weights: State, x_D: Tensor) -> Tensor:
    gate = weights["gate_proj.weight"] @ x_D
    return weights["down_proj.weight"] @ (gate * gate.sigmoid() * (weights["up_proj.weight"] @ x_D))


def _chosen(logits_N: Tensor, a: Architecture, num_chosen: int) -> dict[int, float]:
    """Return the probabilities of the most probable experts; disabled experts take no part."""
    enabled = [i for i in range(a.num_experts) if i not in a.disabled_experts]
    shares = dict(zip(enabled, logits_N[enabled].softmax(0).tolist(), strict=True))
    return dict(sorted(shares.items(), key=lambda pair: -pair[1])[:num_chosen])


def _below(state: State, prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
