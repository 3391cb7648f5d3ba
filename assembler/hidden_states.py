"""Frozen hidden states of a seed: what the routers of its mixes will see."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from assembler.mixture import FeedForward
from assembler.network import Network
from registry.blobs import BlobStore, get_bytes
from registry.manifests import Manifest

BATCH_SIZE = 16


@torch.inference_mode()
def capture(
    seed: Manifest,
    texts: Sequence[str],
    *,
    blobs: BlobStore,
    sequence_length: int,
    num_states: int,
    generator: torch.Generator,
    on_progress: Callable[[int], None],
) -> Tensor:
    """Inputs of every FFN at random positions of each text: bfloat16 [L, texts, num_states, D].

    Of each text the first `sequence_length` tokens are read; a short one gives states repeatedly.
    """
    network = Network.from_manifest(seed, blobs, dtype=torch.bfloat16)
    tokenizer = Tokenizer.from_str(get_bytes(blobs, seed.files["tokenizer.json"]).decode())
    tokenizer.enable_truncation(sequence_length)
    tokenizer.enable_padding()
    kept: list[list[Tensor]] = [[] for _ in range(seed.architecture.num_hidden_layers)]
    ffns = [module for module in network.modules() if isinstance(module, FeedForward)]
    seen: list[Tensor] = [torch.empty(0)] * len(ffns)
    for layer, ffn in enumerate(ffns):
        ffn.register_forward_pre_hook(partial(_remember, seen, layer))
    for start in range(0, len(texts), BATCH_SIZE):
        encodings = tokenizer.encode_batch(list(texts[start : start + BATCH_SIZE]))
        # Padding stands on the right, where a causal network lets no text see it.
        network.model(
            torch.tensor([e.ids for e in encodings]),
            cache=None,
            router_logits=None,
            project_rows=False,
        )
        lengths_B1 = torch.tensor([[max(1, sum(e.attention_mask))] for e in encodings])
        uniform_BS = torch.rand(len(encodings), num_states, generator=generator)
        positions_BS = (uniform_BS * lengths_B1).long()
        for layer, states_BTD in enumerate(seen):
            rows_B1 = torch.arange(len(encodings))[:, None]
            kept[layer].append(states_BTD[rows_B1, positions_BS])
        on_progress(min(start + BATCH_SIZE, len(texts)))
    return torch.stack([torch.cat(layer) for layer in kept])


def _remember(
    seen: list[Tensor], layer: int, _module: nn.Module, arguments: tuple[Tensor, ...]
) -> None:
    seen[layer] = arguments[0]
