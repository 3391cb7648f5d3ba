"""Embed texts with a small frozen sentence encoder, all-MiniLM-L6-v2.

The network is BERT (Devlin et al. 2018, section 3), post-norm, without dropout, in plain PyTorch:
importing the same network from transformers costs more than embedding a domain with it. Its
vectors equal those of transformers to the last bit.

Letters: B batch, T tokens, M width, H heads, K width of a head.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from assembler.routing.embedder import embedder_folder
from registry.checkpoints.file_names import CONFIG, TENSORS, TOKENIZER

# The encoder was trained on sequences of 256 tokens and reads no more of a text.
MAX_TOKENS = 256
BATCH_SIZE = 32

# Takes the number of texts that are embedded, and of all texts.
OnTexts = Callable[[int, int], None]


class Encoder:
    """all-MiniLM-L6-v2 on the CPU, loaded from its package."""

    def __init__(self) -> None:
        folder = embedder_folder()
        self._network = _Bert(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        # To the longest text of a batch.
        self._tokenizer.enable_padding()

    @torch.inference_mode()
    def embed(
        self, texts: Sequence[str], *, on_texts: OnTexts = lambda done, count: None
    ) -> Tensor:
        """Return one vector of length 1 per text [n, 384]: the mean of its last hidden states."""
        batches = []
        for start in range(0, len(texts), BATCH_SIZE):
            on_texts(start, len(texts))
            batches.append(self._embed(texts[start : start + BATCH_SIZE]))
        return torch.cat(batches)

    def _embed(self, texts: Sequence[str]) -> Tensor:
        encodings = self._tokenizer.encode_batch(list(texts))
        tokens_BT = torch.tensor([encoding.ids for encoding in encodings])
        mask_BT = torch.tensor([encoding.attention_mask for encoding in encodings])
        states_BTM = self._network(tokens_BT, mask_BT)
        mask_BT1 = mask_BT[..., None]
        means_BM = (states_BTM * mask_BT1).sum(1) / mask_BT1.sum(1)
        return F.normalize(means_BM, dim=-1)


class _Bert:
    """The network of the encoder, which computes as transformers' `BertModel` does."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        self._num_heads: int = config["num_attention_heads"]
        self._num_layers: int = config["num_hidden_layers"]
        self._eps: float = config["layer_norm_eps"]
        # Copied, since matrix products of tensors that lie anywhere in a file are slower, and may
        # differ in the last bit.
        self._weights = {
            name: tensor.clone() for name, tensor in load_file(folder / TENSORS).items()
        }

    def __call__(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the last hidden states [B, T, M]; `mask_BT` is 0 for padding."""
        num_tokens = tokens_BT.shape[1]
        mask_BHTT = None
        if not mask_BT.all():
            mask_BHTT = mask_BT.bool()[:, None, None, :].expand(-1, 1, num_tokens, -1)
        positions_T = torch.arange(num_tokens)
        x_BTM = (
            F.embedding(tokens_BT, self._weights["embeddings.word_embeddings.weight"])
            + self._weights["embeddings.token_type_embeddings.weight"][0]
            + F.embedding(positions_T, self._weights["embeddings.position_embeddings.weight"])
        )
        x_BTM = self._norm(x_BTM, "embeddings.LayerNorm")
        for layer in range(self._num_layers):
            at = f"encoder.layer.{layer}."
            mixed_BTM = self._linear(
                self._attend(x_BTM, mask_BHTT, at), at + "attention.output.dense"
            )
            x_BTM = self._norm(mixed_BTM + x_BTM, at + "attention.output.LayerNorm")
            inner = F.gelu(self._linear(x_BTM, at + "intermediate.dense"))
            x_BTM = self._norm(
                self._linear(inner, at + "output.dense") + x_BTM, at + "output.LayerNorm"
            )
        return x_BTM

    def _attend(self, x_BTM: Tensor, mask_BHTT: Tensor | None, at: str) -> Tensor:
        """Return the values [B, T, M] that self-attention mixes in one layer."""
        query_BHTK, key_BHTK, value_BHTK = (
            self._linear(x_BTM, f"{at}attention.self.{name}")
            .view(*x_BTM.shape[:-1], self._num_heads, -1)
            .transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed_BHTK = F.scaled_dot_product_attention(
            query_BHTK,
            key_BHTK,
            value_BHTK,
            attn_mask=mask_BHTT,
            scale=query_BHTK.shape[-1] ** -0.5,
        )
        return mixed_BHTK.transpose(1, 2).flatten(2)

    def _linear(self, x: Tensor, at: str) -> Tensor:
        return F.linear(x, self._weights[at + ".weight"], self._weights[at + ".bias"])

    def _norm(self, x_BTM: Tensor, at: str) -> Tensor:
        weight, bias = self._weights[at + ".weight"], self._weights[at + ".bias"]
        return F.layer_norm(x_BTM, list(weight.shape), weight, bias, self._eps)
