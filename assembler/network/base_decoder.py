"""transformers' own decoder of a base, with our FFN or mixture in the place of each `mlp`.

Attention, norms and positions are those of the library. Only what a mix changes is ours, so a new
base needs no code here. Letters at the end of a tensor's name: B batch, T tokens, D hidden, N
routed experts, M domain-embedding width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModel, DynamicCache, PreTrainedConfig
from transformers.initialization import no_init_weights

from assembler.network import base_attention
from assembler.network.moe import FeedForward, MoE
from registry.checkpoints.architecture import Architecture


@dataclass
class Call:
    """What one pass asks of all mixtures, and the list that receives their router logits."""

    router_logits: list[Tensor] | None = None
    domain_embeddings_LNM: Tensor | None = None


class BlockMoE(MoE):
    """A mixture that is called as transformers calls an FFN."""

    def __init__(self, a: Architecture, layer: int, call: Call) -> None:
        super().__init__(a)
        self._layer, self._call = layer, call

    def forward(self, x_BTD: Tensor) -> Tensor:  # type: ignore[override]
        """Map inputs [B, T, D] to outputs [B, T, D]."""
        embeddings_LNM = self._call.domain_embeddings_LNM
        embeddings_NM = None if embeddings_LNM is None else embeddings_LNM[self._layer]
        y_TD, logits_TN = super().forward(x_BTD.flatten(0, -2), embeddings_NM)
        if self._call.router_logits is not None:
            self._call.router_logits.append(logits_TN)
        return y_TD.view_as(x_BTD)


class BaseDecoder(nn.Module):
    """Token embeddings, blocks and the final norm, under the names of the checkpoint."""

    domain_embeddings: Tensor
    embed_tokens: nn.Embedding
    layers: nn.ModuleList
    norm: Any

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self._call = Call()
        inner = _decoder(a)
        for layer, block in enumerate(inner.layers):
            block.mlp = BlockMoE(a, layer, self._call) if a.num_experts else FeedForward(a)
        for name, child in inner.named_children():
            self.add_module(name, child)
        # In a tuple, so that its parts are not registered a second time under other names.
        self._inner = (inner,)
        if a.has_projection:
            shape = (a.num_hidden_layers, a.num_experts, a.domain_embedding_size)
            self.register_buffer("domain_embeddings", torch.zeros(shape))
        self._arguments: dict[int, list[dict[str, Any]]] = {}

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        cache: Any,
        router_logits: list[Tensor] | None,
        project_rows: bool,
    ) -> Tensor:
        """Map tokens [B, T] to normed states [B, T, D]; arguments as in `Network.forward`."""
        self._call.router_logits = router_logits
        self._call.domain_embeddings_LNM = self.domain_embeddings if project_rows else None
        [inner] = self._inner
        output = inner(input_ids=tokens_BT, past_key_values=cache, use_cache=cache is not None)
        return cast(Tensor, output.last_hidden_state)

    def new_cache(self) -> DynamicCache:
        """Return a cache without tokens."""
        [inner] = self._inner
        return DynamicCache(config=inner.config)

    def block_inputs(self, tokens_BT: Tensor) -> list[Tensor]:
        """Return the inputs [B, T, D] of all blocks, and of the final norm."""
        with self._recording() as recorded:
            self(tokens_BT, cache=None, router_logits=None, project_rows=False)
        return [x_BTD for x_BTD, _ in recorded]

    def through_block(self, layer: int, x_BTD: Tensor) -> Tensor:
        """Run one block on inputs [B, T, D] of texts from their first token on."""
        length = x_BTD.shape[1]
        if length not in self._arguments:
            # Masks and rotations depend on the length only; each block gets its own.
            tokens_BT = torch.zeros(1, length, dtype=torch.long, device=x_BTD.device)
            with self._recording() as recorded:
                self(tokens_BT, cache=None, router_logits=None, project_rows=False)
            self._arguments[length] = [arguments for _, arguments in recorded[:-1]]
        self._call.router_logits = self._call.domain_embeddings_LNM = None
        out_BTD: Tensor = self.layers[layer](x_BTD, **self._arguments[length][layer])
        return out_BTD

    @contextmanager
    def _recording(self) -> Iterator[list[tuple[Tensor, dict[str, Any]]]]:
        """Yield a list that receives the inputs and other arguments of blocks and final norm."""
        recorded: list[tuple[Tensor, dict[str, Any]]] = []

        def record(_: nn.Module, inputs: tuple[Tensor, ...], arguments: dict[str, Any]) -> None:
            recorded.append((inputs[0], arguments))

        modules = (*self.layers, self.norm)
        handles = [m.register_forward_pre_hook(record, with_kwargs=True) for m in modules]
        try:
            yield recorded
        finally:
            for handle in handles:
                handle.remove()


def dense_config(a: Architecture) -> PreTrainedConfig:
    """Return the base's own config, without what a mixture adds."""
    # No row of the embeddings is special to us: gradients reach all of them.
    values = a.to_config() | {"model_type": a.base_model_type, "pad_token_id": None}
    return CONFIG_MAPPING[a.base_model_type].from_dict(values)


def _decoder(a: Architecture) -> Any:
    """Return transformers' decoder without weights; what the config determines is computed."""
    build: Any = AutoModel.from_config
    attention = base_attention.name_for(a)
    with no_init_weights():
        inner = build(dense_config(a), attn_implementation=attention, dtype=torch.float32)
    for module in list(inner.modules()):
        _compute_buffers(inner, module)
    return inner.eval()


def _compute_buffers(inner: Any, module: nn.Module) -> None:
    """Compute the module's own buffers that no checkpoint holds, such as those of positions."""
    buffers = {
        name: buffer
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set and buffer.is_meta
    }
    if not buffers:
        return
    for name, buffer in buffers.items():
        module._buffers[name] = torch.empty_like(buffer, device="cpu")
    for parameter in module.parameters(recurse=False):
        # Otherwise transformers would draw random numbers for it.
        setattr(parameter, "_is_hf_initialized", True)  # noqa: B010  # its own mark
    with torch.device("cpu"):
        inner._init_weights(module)
