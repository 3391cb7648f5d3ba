"""Embed texts with a small frozen sentence encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from assembler.routing.embedder import embedder_folder

# The encoder was trained on sequences of 256 tokens and reads no more of a text.
MAX_TOKENS = 256
BATCH_SIZE = 32


class Encoder:
    """all-MiniLM-L6-v2 on the CPU, loaded from its package."""

    def __init__(self) -> None:
        folder = embedder_folder()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._network = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Return one vector of length 1 per text [n, 384]: the mean of its last hidden states."""
        batches = [texts[i : i + BATCH_SIZE] for i in range(0, len(texts), BATCH_SIZE)]
        return torch.cat([self._embed(batch) for batch in batches])

    def _embed(self, texts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        states_BTM = self._network(**tokens).last_hidden_state
        mask_BT1 = tokens["attention_mask"][..., None]
        means_BM = (states_BTM * mask_BT1).sum(1) / mask_BT1.sum(1)
        return torch.nn.functional.normalize(means_BM, dim=-1)
