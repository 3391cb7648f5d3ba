"""The reference network: Llama, dense or with experts, in plain PyTorch.

Other bases run transformers' decoder instead of ours; see `assembler.network.base_decoder`.

It defines the results that `engine.vllm_plugin.model` must reproduce, and training runs it.
Parameter names equal the checkpoint's tensor names (`Architecture.tensor_shapes`), so a state dict
needs no translation.

Letters at the end of a tensor's name are its axes: B batch, T tokens, D hidden, N routed experts, M
domain-embedding width, V vocabulary.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from assembler.network.attention import Attention, AttentionMixture, Cache, Rotation, rope
from assembler.network.int8_linear import Int8Linear
from assembler.network.moe import FeedForward, MoE
from assembler.network.rms_norm import RMSNorm
from engine.vllm_plugin import tensors
from registry.blobs.blobs import BlobStore
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.int8_config import int8_modules
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import SCALE

if TYPE_CHECKING:
    from assembler.network.base_decoder import BaseDecoder


class Network(nn.Module):
    """A causal language model: tokens in, next-token logits out."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.model = Decoder(a) if a.is_plain_llama else _base_decoder(a)
        # A tied checkpoint has no `lm_head.weight`; neither has a state dict without this
        # attribute.
        if not a.tie_word_embeddings:
            self.lm_head = nn.Linear(a.hidden_size, a.vocab_size, bias=False)

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> Self:
        """Return a network without weights, on the meta device; int8 layers compute in int8.

        Raises InvalidCheckpoint for a config that is not supported.
        """
        with torch.device("meta"):
            network = cls(Architecture.from_config(config))
            for name in int8_modules(config):
                linear = cast(nn.Linear, network.get_submodule(name))
                layer = Int8Linear(linear.in_features, linear.out_features, bias=linear.bias)
                network.set_submodule(name, layer)
        return network

    @classmethod
    def from_manifest(cls, manifest: Manifest, blobs: BlobStore, *, dtype: torch.dtype) -> Self:
        """Return the network of a checkpoint on the CPU, frozen and in evaluation mode.

        Tensors stored in `dtype` are mapped, not copied. Int8 layers compute in int8 whatever
        `dtype` is, and return `dtype`. Raises InvalidCheckpoint for a config that is not supported.
        """
        network = cls.of_config(manifest.config)
        state = {
            name: tensor if tensor.dtype == torch.int8 or name.endswith(SCALE) else tensor.to(dtype)
            for name, tensor in tensors.load(blobs, manifest)
        }
        network.load_state_dict(state, assign=True)
        return network.requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.embed_tokens.weight.device

    @property
    def head_weight_VD(self) -> Tensor:
        """The weight [V, D] of the output head, which may be tied to the token embeddings."""
        tied = self.architecture.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        cache: Any = None,
        router_logits: list[Tensor] | None = None,
        project_rows: bool = False,
        head: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Map tokens [B, T] to logits [B, T, V].

        - `cache`, from `new_cache`, holds the keys and values of the preceding tokens; this call
          appends its own.
        - `router_logits` receives one tensor [B * T, N] per block.
        - `project_rows` computes the router rows from the domain embeddings through the projection,
          so that gradients reach the projection. Otherwise the stored rows are used.
        - `head` replaces the output head: it gets the last states [B, T, D] and the head's weight
          [V, D], and its result is returned. A loss that never holds all logits is one use. It must
          apply the architecture's `logit_divisor` and `logit_soft_cap`.
        """
        x_BTD = self.model(
            tokens_BT, cache=cache, router_logits=router_logits, project_rows=project_rows
        )
        return self.logits(x_BTD) if head is None else head(x_BTD, self.head_weight_VD)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Map normed states [B, T, D] to logits [B, T, V]."""
        # For a slice torch would multiply sequence by sequence, at two thirds of the speed.
        x_BTD = x_BTD.contiguous()
        if self.architecture.tie_word_embeddings:
            logits_BTV = F.linear(x_BTD, self.head_weight_VD)
        else:
            logits_BTV = cast(Tensor, self.lm_head(x_BTD))
        if (divisor := self.architecture.logit_divisor) != 1:
            logits_BTV = logits_BTV / divisor
        if (cap := self.architecture.logit_soft_cap) is not None:
            logits_BTV = cap * (logits_BTV / cap).tanh()
        return logits_BTV

    def new_cache(self) -> Any:
        """Return a cache without tokens for this network."""
        return self.model.new_cache()


class Decoder(nn.Module):
    """Token embeddings, blocks and the final norm."""

    domain_embeddings: Tensor

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.rope_theta, self.head_dim = a.rope_theta, a.head_dim
        # A `_weight` skips torch's initialization: on the meta device that would import SymPy and
        # much more, which takes three seconds in every process.
        embeddings = torch.zeros(a.vocab_size, a.hidden_size)
        self.embed_tokens = nn.Embedding(a.vocab_size, a.hidden_size, _weight=embeddings)
        self.layers = nn.ModuleList(Block(a, layer) for layer in range(a.num_hidden_layers))
        self.norm = RMSNorm(a.hidden_size, a.rms_norm_eps)
        if a.has_projection:
            shape = (a.num_hidden_layers, a.num_experts, a.domain_embedding_size)
            self.register_buffer("domain_embeddings", torch.zeros(shape))

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        cache: Cache | None,
        router_logits: list[Tensor] | None,
        project_rows: bool,
    ) -> Tensor:
        """Map tokens [B, T] to normed states [B, T, D]; arguments as in `Network.forward`."""
        x_BTD = self.embed_tokens(tokens_BT)
        start = cache.num_tokens if cache else 0
        positions_T = torch.arange(start, start + tokens_BT.shape[1], device=tokens_BT.device)
        rotation = rope(positions_T, head_dim=self.head_dim, theta=self.rope_theta)
        for layer, block in enumerate(self.layers):
            embeddings_NM = self.domain_embeddings[layer] if project_rows else None
            x_BTD, logits_TN = block(x_BTD, rotation, cache=cache, domain_embeddings=embeddings_NM)
            if router_logits is not None:
                router_logits.append(logits_TN)
        return cast(Tensor, self.norm(x_BTD))

    def new_cache(self) -> Cache:
        """Return a cache without tokens."""
        return Cache()

    def block_inputs(self, tokens_BT: Tensor) -> list[Tensor]:
        """Return the inputs [B, T, D] of all blocks, and of the final norm."""
        inputs = [self.embed_tokens(tokens_BT)]
        for layer in range(len(self.layers)):
            inputs.append(self.through_block(layer, inputs[-1]))
        return inputs

    def through_block(self, layer: int, x_BTD: Tensor) -> Tensor:
        """Run one block on inputs [B, T, D] of texts from their first token on."""
        positions_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
        rotation = rope(positions_T, head_dim=self.head_dim, theta=self.rope_theta)
        out_BTD: Tensor = self.layers[layer](x_BTD, rotation, cache=None, domain_embeddings=None)[0]
        return out_BTD


class Block(nn.Module):
    """Attention and FFN, each after its own norm.

    Either may have been removed, together with its norm.
    """

    def __init__(self, a: Architecture, layer: int) -> None:
        super().__init__()
        has_attention, ffn_size = a.has_attention(layer), a.ffn_size(layer)
        self.input_layernorm = _norm(a) if has_attention else None
        self.self_attn = _attention(a, layer) if has_attention else None
        # A parallel block feeds attention and FFN from one norm.
        has_norm = ffn_size and not a.parallel_block
        self.post_attention_layernorm = _norm(a) if has_norm else None
        self.mlp: MoE | FeedForward | None = None
        if ffn_size:
            self.mlp = MoE(a) if a.num_experts else FeedForward(a, size=ffn_size)

    def forward(
        self,
        x_BTD: Tensor,
        rotation: Rotation,
        *,
        cache: Cache | None,
        domain_embeddings: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the block's output [B, T, D] and, for a mixture, its router logits [B * T, N]."""
        normed_BTD = x_BTD
        if self.input_layernorm is not None and self.self_attn is not None:
            normed_BTD = self.input_layernorm(x_BTD)
            x_BTD = x_BTD + self.self_attn(normed_BTD, rotation, cache=cache)
        if self.mlp is None:
            return x_BTD, None
        if self.post_attention_layernorm is not None:
            normed_BTD = self.post_attention_layernorm(x_BTD)
        if isinstance(self.mlp, FeedForward):
            return x_BTD + self.mlp(normed_BTD), None
        y_TD, logits_TN = self.mlp(normed_BTD.flatten(0, 1), domain_embeddings)
        return x_BTD + y_TD.view_as(x_BTD), logits_TN


def _norm(a: Architecture) -> RMSNorm:
    return RMSNorm(a.hidden_size, a.rms_norm_eps)


def _attention(a: Architecture, layer: int) -> Attention | AttentionMixture:
    has_experts = a.num_experts > 0 and a.attention != "average"
    return AttentionMixture(a, layer) if has_experts else Attention(a, layer)


def _base_decoder(a: Architecture) -> "BaseDecoder":
    # Imported here: transformers takes two seconds to load, and a plain Llama does not need it.
    from assembler.network.base_decoder import BaseDecoder

    return BaseDecoder(a)
