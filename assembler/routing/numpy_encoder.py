"""The sentence encoder in NumPy, for the web process, which has no torch.

A person who pastes a text wants the nearest domains at once, but importing torch takes seconds. The
network is BERT (Devlin et al. 2018, section 3), post-norm, without dropout. Shapes: T tokens, M
width, H heads, K width of a head, I inner width.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from assembler.routing.embedder import embedder_folder
from registry.checkpoints.file_names import CONFIG, TENSORS, TOKENIZER
from registry.checkpoints.safetensors_header import read_header

MAX_TOKENS = 256
# Numbers of a vector.
WIDTH = 384

Array = NDArray[np.float32]


class QueryEncoder:
    """The sentence encoder with memory-mapped weights, equal to `text_encoder.Encoder`."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        self._num_heads: int = config["num_attention_heads"]
        self._num_layers: int = config["num_hidden_layers"]
        self._eps: float = config["layer_norm_eps"]
        self._weights = _mapped(folder / TENSORS)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def embed(self, text: str) -> list[float]:
        """Return a vector [M] of length 1, equal to `text_encoder.Encoder`'s."""
        tokens = self._tokenizer.encode(text).ids
        mean_M = self._states(tokens).mean(axis=0)
        vector: list[float] = (mean_M / np.linalg.norm(mean_M)).tolist()
        return vector

    def num_tokens(self, text: str) -> int:
        """Return how many tokens of a text are read."""
        return len(self._tokenizer.encode(text).ids)

    def _states(self, tokens: list[int]) -> Array:
        """Return the last hidden states [T, M]."""
        name = "embeddings.{}_embeddings.weight".format
        states_TM = (
            self._weights[name("word")][tokens]
            + self._weights[name("position")][: len(tokens)]
            + self._weights[name("token_type")][0]
        )
        states_TM = self._norm(states_TM, "embeddings.LayerNorm")
        for layer in range(self._num_layers):
            at = f"encoder.layer.{layer}."
            mixed_TM = self._linear(self._attend(states_TM, at), at + "attention.output.dense")
            states_TM = self._norm(states_TM + mixed_TM, at + "attention.output.LayerNorm")
            inner_TI = _gelu(self._linear(states_TM, at + "intermediate.dense"))
            outer_TM = self._linear(inner_TI, at + "output.dense")
            states_TM = self._norm(states_TM + outer_TM, at + "output.LayerNorm")
        return states_TM

    def _attend(self, states_TM: Array, at: str) -> Array:
        """Return the values [T, M] that self-attention mixes in one layer."""

        def heads(name: str) -> Array:
            projected_TM = self._linear(states_TM, f"{at}attention.self.{name}")
            heads_THK = projected_TM.reshape(len(states_TM), self._num_heads, -1)
            return heads_THK.transpose(1, 0, 2)

        query_HTK, key_HTK, value_HTK = heads("query"), heads("key"), heads("value")
        scores_HTT = query_HTK @ key_HTK.transpose(0, 2, 1) / np.float32(query_HTK.shape[-1] ** 0.5)
        weights_HTT = np.exp(scores_HTT - scores_HTT.max(axis=-1, keepdims=True))
        weights_HTT /= weights_HTT.sum(axis=-1, keepdims=True)
        mixed_THK: Array = (weights_HTT @ value_HTK).transpose(1, 0, 2)
        return mixed_THK.reshape(states_TM.shape)

    def _linear(self, x: Array, at: str) -> Array:
        y: Array = x @ self._weights[at + ".weight"].T + self._weights[at + ".bias"]
        return y

    def _norm(self, x: Array, at: str) -> Array:
        centered = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + np.float32(self._eps))
        y: Array = centered / scale * self._weights[at + ".weight"] + self._weights[at + ".bias"]
        return y


@cache
def query_encoder() -> QueryEncoder:
    """Return the encoder of this process, loaded once."""
    return QueryEncoder(embedder_folder())


def _gelu(x: Array) -> Array:
    """Return x * Phi(x); erf by Abramowitz and Stegun, formula 7.1.26, error up to 1.5e-7."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    y: Array = 0.5 * x * (1 + erf)
    return y


def _mapped(path: Path) -> dict[str, Array]:
    """Map the float32 tensors of a safetensors file, by name."""
    data = np.memmap(path, mode="r")
    return {
        name: data[span.start : span.end].view(np.float32).reshape(span.shape)
        for name, span in read_header(path).items()
        if span.dtype == "F32"
    }
