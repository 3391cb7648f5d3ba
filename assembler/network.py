"""The reference network, readable in one sitting: Llama, dense or with Nexus mixtures as FFNs.

It defines what `engine.vllm_model` must reproduce, and it is what training runs. Parameter names
are the checkpoint's (`Architecture.tensor_shapes`), so a state dict needs no translation.

Letters at the end of a tensor's name are its axes: B batch, T tokens (in mixtures: of the whole
batch), S keys in view, D hidden, H heads, C head width, N routed experts, K experts per token,
M domain-embedding width, V vocabulary.
"""

from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import tensors
from registry.architecture import Architecture
from registry.blobs import BlobStore
from registry.errors import Incompatible, Problem
from registry.manifests import Manifest


class Network(nn.Module):
    """Tokens in, next-token logits out.

    Raises Incompatible when the architecture asks for what this network does not have.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        _check_supported(architecture)
        a = self.architecture = architecture
        self.model = Decoder(a)
        # Without the attribute the state dict has no `lm_head.weight`, as a tied checkpoint.
        if not a.tie_word_embeddings:
            self.lm_head = nn.Linear(a.hidden_size, a.vocab_size, bias=False)

    @classmethod
    def from_manifest(cls, manifest: Manifest, blobs: BlobStore, *, dtype: torch.dtype) -> Self:
        """The network of a checkpoint, on the CPU, frozen and in evaluation mode.

        Tensors that are stored in `dtype` are mapped, not copied.
        """
        with torch.device("meta"):
            network = cls(manifest.architecture)
        state = {name: tensor.to(dtype) for name, tensor in tensors.load(blobs, manifest)}
        network.load_state_dict(state, assign=True)
        return network.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        return self.model.norm.weight.device

    @property
    def head_weight_VD(self) -> Tensor:
        tied = self.architecture.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        cache: "Cache | None" = None,
        router_logits: list[Tensor] | None = None,
        project_rows: bool = False,
    ) -> Tensor:
        """Logits [B, T, V].

        `cache` holds the keys and values of the tokens before these and is extended by these.
        `router_logits` is given one [B * T, N] tensor per block. `project_rows` computes the router
        rows from the domain embeddings through the projection, so that gradients reach it; without,
        the folded rows are used.
        """
        x_BTD = self.model(
            tokens_BT, cache=cache, router_logits=router_logits, project_rows=project_rows
        )
        return F.linear(x_BTD, self.head_weight_VD)


class Decoder(nn.Module):
    domain_embeddings: Tensor

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.rope_theta, self.head_dim = a.rope_theta, a.head_dim
        self.embed_tokens = nn.Embedding(a.vocab_size, a.hidden_size)
        self.layers = nn.ModuleList(Block(a, layer) for layer in range(a.num_hidden_layers))
        self.norm = RMSNorm(a.hidden_size, a.rms_norm_eps)
        if a.num_experts and a.router == "nexus":
            embeddings_NM = torch.zeros(a.num_experts, a.domain_embedding_size)
            self.register_buffer("domain_embeddings", embeddings_NM)

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        cache: "Cache | None",
        router_logits: list[Tensor] | None,
        project_rows: bool,
    ) -> Tensor:
        x_BTD = self.embed_tokens(tokens_BT)
        start = cache.num_tokens if cache else 0
        positions_T = torch.arange(start, start + tokens_BT.shape[1], device=tokens_BT.device)
        rotation = rope(positions_T, head_dim=self.head_dim, theta=self.rope_theta)
        embeddings_NM = self.domain_embeddings if project_rows else None
        for block in self.layers:
            x_BTD, logits_TN = block(x_BTD, rotation, cache=cache, domain_embeddings=embeddings_NM)
            if router_logits is not None:
                router_logits.append(logits_TN)
        return cast(Tensor, self.norm(x_BTD))


class Block(nn.Module):
    def __init__(self, a: Architecture, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(a.hidden_size, a.rms_norm_eps)
        self.self_attn = Attention(a, layer)
        self.post_attention_layernorm = RMSNorm(a.hidden_size, a.rms_norm_eps)
        self.mlp = Mixture(a) if a.num_experts else FeedForward(a)

    def forward(
        self,
        x_BTD: Tensor,
        rotation: tuple[Tensor, Tensor],
        *,
        cache: "Cache | None",
        domain_embeddings: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The block's output and, of a mixture, its router logits [B * T, N]."""
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotation, cache=cache)
        normed_BTD = self.post_attention_layernorm(x_BTD)
        if isinstance(self.mlp, FeedForward):
            return x_BTD + self.mlp(normed_BTD), None
        y_TD, logits_TN = self.mlp(normed_BTD.flatten(0, 1), domain_embeddings)
        return x_BTD + y_TD.view_as(x_BTD), logits_TN


class RMSNorm(nn.Module):
    """Root mean square norm, computed in float32 whatever the input's dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x_float = x.float()
        scale = torch.rsqrt(x_float.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (x_float * scale).to(x.dtype)


class Attention(nn.Module):
    """Causal attention; query heads share key-value heads in contiguous groups."""

    def __init__(self, a: Architecture, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, a.head_dim
        queries, keys = a.num_attention_heads * a.head_dim, a.num_key_value_heads * a.head_dim
        self.q_proj = nn.Linear(a.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(a.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(a.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, a.hidden_size, bias=False)

    def forward(
        self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], *, cache: "Cache | None"
    ) -> Tensor:
        query_BHTC = rotate(self._heads(self.q_proj(x_BTD)), rotation)
        key_BHSC = rotate(self._heads(self.k_proj(x_BTD)), rotation)
        value_BHSC = self._heads(self.v_proj(x_BTD))
        if cache is not None:
            key_BHSC, value_BHSC = cache.extend(self.layer, key_BHSC, value_BHSC)
        num_new, num_seen = query_BHTC.shape[2], key_BHSC.shape[2]
        fresh = num_new == num_seen
        mask_TS = None if fresh else causal_mask(num_new, num_seen, device=x_BTD.device)
        out_BHTC = F.scaled_dot_product_attention(
            query_BHTC, key_BHSC, value_BHSC, attn_mask=mask_TS, is_causal=fresh, enable_gqa=True
        )
        return cast(Tensor, self.o_proj(out_BHTC.transpose(1, 2).flatten(2)))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_dim).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU, on any leading axes."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(a.hidden_size, a.intermediate_size, bias=False)
        self.up_proj = nn.Linear(a.hidden_size, a.intermediate_size, bias=False)
        self.down_proj = nn.Linear(a.intermediate_size, a.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)))


class Mixture(nn.Module):
    """The Nexus mixture (arXiv 2408.15901, section 3) with two ways to combine.

    `p` is the softmax over all routed experts; each token takes its K largest without
    renormalising. `sum` (the paper): `shared(x) + sum_K p_k expert_k(x)`. `convex`: the shared
    expert is weighted by `1 - sum_K p_k`, so that pretrained experts keep their scale.
    """

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.num_experts_per_tok, self.combine = a.num_experts_per_tok, a.combine
        self.gate = Gate(a)
        self.shared_expert = FeedForward(a)
        self.experts = nn.ModuleList(FeedForward(a) for _ in range(a.num_experts))

    def forward(self, x_TD: Tensor, domain_embeddings: Tensor | None) -> tuple[Tensor, Tensor]:
        logits_TN = self.gate(x_TD, domain_embeddings)
        p_TN = logits_TN.float().softmax(-1)
        p_TK, expert_TK = p_TN.topk(self.num_experts_per_tok)
        p_TK = p_TK.to(x_TD.dtype)
        routed_TD = (p_TK[..., None] * self._routed(x_TD, expert_TK)).sum(1)
        shared_TD = self.shared_expert(x_TD)
        if self.combine == "convex":
            shared_TD = (1 - p_TK.sum(-1, keepdim=True)) * shared_TD
        return shared_TD + routed_TD, logits_TN

    def _routed(self, x_TD: Tensor, expert_TK: Tensor) -> Tensor:
        """Each token through its experts [T, K, D]: sorted by expert, so none sees all tokens."""
        order = expert_TK.flatten().argsort(stable=True)
        counts = expert_TK.flatten().bincount(minlength=len(self.experts)).tolist()
        chunks = torch.split(x_TD[order // self.num_experts_per_tok], counts)
        # An expert without tokens runs too: sharded training needs the same graph on every rank.
        outputs = torch.cat([e(chunk) for e, chunk in zip(self.experts, chunks, strict=True)])
        return outputs[order.argsort()].view(*expert_TK.shape, -1)


class Gate(nn.Module):
    """Router of one mixture: folded rows, and for `nexus` the projection they come from."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(a.num_experts, a.hidden_size))
        if a.router == "nexus":
            w1 = nn.Linear(a.domain_embedding_size, 2 * a.hidden_size, bias=False)
            w2 = nn.Linear(a.hidden_size, a.hidden_size, bias=False)
            self.projection = nn.ModuleList([w1, w2])

    def forward(self, x_TD: Tensor, domain_embeddings: Tensor | None) -> Tensor:
        rows_ND = self.weight if domain_embeddings is None else self.project(domain_embeddings)
        return F.linear(x_TD, rows_ND)

    def project(self, embeddings_NM: Tensor) -> Tensor:
        w1, w2 = (cast(nn.Linear, linear).weight for linear in self.projection)
        return project(embeddings_NM, w1, w2)


class Cache:
    """Keys and values of the tokens read so far, one pair per block."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def num_tokens(self) -> int:
        return self._layers[0][0].shape[2] if self._layers else 0

    def extend(self, layer: int, key_BHTC: Tensor, value_BHTC: Tensor) -> tuple[Tensor, Tensor]:
        """Append, and return all keys and values [B, H, S, C] of the block."""
        if layer in self._layers:
            keys, values = self._layers[layer]
            key_BHTC = torch.cat([keys, key_BHTC], 2)
            value_BHTC = torch.cat([values, value_BHTC], 2)
        self._layers[layer] = key_BHTC, value_BHTC
        return key_BHTC, value_BHTC


def project(embeddings_NM: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """Router rows [N, D] of domain embeddings: `W2 (swish(a) * b)`, `[a, b] = W1 d` (Nexus, 3).

    With the weights of all blocks on a first axis, the rows of all blocks [L, N, D].
    """
    a_ND, b_ND = (embeddings_NM @ w1.mT).chunk(2, -1)
    return (F.silu(a_ND) * b_ND) @ w2.mT


def rope(positions_T: Tensor, *, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, C] of rotary embeddings, the second half repeating the first."""
    exponents = torch.arange(0, head_dim, 2, device=positions_T.device).float() / head_dim
    angles = torch.outer(positions_T.float(), theta**-exponents).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x_BHTC: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the pairs (c, c + C/2), the convention of Hugging Face checkpoints."""
    cos_TC, sin_TC = (r.to(x_BHTC.dtype) for r in rotation)
    first, second = x_BHTC.chunk(2, -1)
    return x_BHTC * cos_TC + torch.cat([-second, first], -1) * sin_TC


def causal_mask(num_new: int, num_seen: int, *, device: torch.device) -> Tensor:
    """[T, S], true where the T last of S tokens may look."""
    ones = torch.ones(num_new, num_seen, dtype=torch.bool, device=device)
    return ones.tril(num_seen - num_new)


def _check_supported(a: Architecture) -> None:
    supported: dict[str, tuple[object, object]] = {
        "attention": (a.attention, "average"),
        "shared_expert": (a.shared_expert, True),
        "parallel_block": (a.parallel_block, False),
        "disabled_experts": (a.disabled_experts, ()),
    }
    problems = tuple(
        Problem(f"/config/{field}", f"is {value!r}, supported is {only!r}")
        for field, (value, only) in supported.items()
        if a.num_experts and value != only
    )
    if problems:
        raise Incompatible("this recipe is not supported by the network", problems=problems)
