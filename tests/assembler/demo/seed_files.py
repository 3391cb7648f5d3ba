"""Make tiny GGUF files as seeds of demos are: a random network, and a tokenizer of bytes.

Names of tensors are those of the reference library.
"""

from pathlib import Path

import gguf
import numpy as np
from tokenizers import pre_tokenizers

from registry.checkpoints.architecture import Architecture
from registry.checkpoints.numpy_tensors import Floats, narrow, widen
from tests import tiny, tiny_gguf

END, TOOL = "<|im_end|>", "<tool_call>"
MERGES = ["t h", "th e"]
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
WORDS = [*LETTERS, "th", "the"]
TOKENS = [*WORDS, END, TOOL, *(f"[PAD{number}]" for number in range(4))]
TYPES = [
    *[gguf.TokenType.NORMAL] * len(WORDS),
    gguf.TokenType.CONTROL,
    gguf.TokenType.USER_DEFINED,
    *[gguf.TokenType.UNUSED] * 4,
]
# Of SentencePiece: pieces, each with its score.
PIECES = {
    "\u2581": -3.0, "t": -4.0, "h": -5.0, "e": -6.0, "th": -2.0, "the": -1.0, "\u2581th": -0.5
}  # fmt: skip
RUN = "\u2581\u2581"
SENTENCEPIECE = [
    *("<pad>", "<eos>", "<bos>", "<unk>"),
    *(f"<0x{number:02X}>" for number in range(256)),
    *PIECES,
    RUN,
]
SENTENCEPIECE_TYPES = [
    *[gguf.TokenType.CONTROL] * 4,
    *[gguf.TokenType.BYTE] * 256,
    *[gguf.TokenType.NORMAL] * len(PIECES),
    gguf.TokenType.USER_DEFINED,
]
SCORES = [*[-1000.0] * 260, *PIECES.values(), -1000.0]
LLAMA, QWEN2, GEMMA3 = (
    Architecture.from_config(
        {
            "model_type": kind,
            "vocab_size": num_tokens,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
        }
    )
    for kind, num_tokens in (
        ("llama", len(TOKENS)),
        ("qwen2", len(TOKENS)),
        ("gemma3_text", len(SENTENCEPIECE)),
    )
)
KINDS = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}


def weights(architecture: Architecture) -> dict[str, Floats]:
    """Return random weights that bfloat16 holds, by the names of transformers."""
    made = {}
    for position, (name, shape) in enumerate(architecture.tensor_shapes().items()):
        values = np.random.default_rng(position).standard_normal(shape, np.float32)
        made[name] = widen(narrow(values, "BF16"), "BF16")
    return made


def write(path: Path, architecture: Architecture, *, splits: str) -> Path:
    """Write the network with a tokenizer that splits text in that way, and return `path`.

    The embeddings are there twice: in 8 bits, and whole as the output layer.
    """
    kind = architecture.base_model_type
    writer = gguf.GGUFWriter(path, kind.removesuffix("_text"))
    writer.add_context_length(architecture.max_position_embeddings)
    writer.add_embedding_length(architecture.hidden_size)
    writer.add_block_count(architecture.num_hidden_layers)
    writer.add_feed_forward_length(architecture.intermediate_size)
    writer.add_head_count(architecture.num_attention_heads)
    writer.add_head_count_kv(architecture.num_key_value_heads)
    writer.add_layer_norm_rms_eps(architecture.rms_norm_eps)
    writer.add_rope_freq_base(architecture.rope_theta)
    writer.add_key_length(architecture.head_dim)
    if window := architecture.base_fields.get("sliding_window"):
        writer.add_sliding_window(window)
    if kind == "gemma3_text":
        _add_sentencepiece(writer)
    else:
        _add_tokenizer(writer, splits)
    names = gguf.get_tensor_name_map(KINDS[kind], architecture.num_hidden_layers)
    heads = {"q_proj": architecture.num_attention_heads, "k_proj": architecture.num_key_value_heads}
    for name, values in weights(architecture).items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None
        part = name.split(".")[-2]
        if kind == "llama" and part in heads:
            values = np.ascontiguousarray(tiny_gguf.interleaved(values, heads[part]))
        if kind == "gemma3_text" and name.endswith("norm.weight"):
            values = values + 1
        if name == "model.embed_tokens.weight":
            writer.add_tensor("output.weight", values)
            few = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(stored, gguf.quantize(values, few), raw_dtype=few)
        else:
            writer.add_tensor(stored, values)
    tiny_gguf.finish(writer)
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, splits: str) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splits)
    writer.add_token_list(TOKENS)
    writer.add_token_types(TYPES)
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(TOKENS.index(END))
    writer.add_pad_token_id(0)
    writer.add_chat_template(tiny.CHAT_TEMPLATE)


def _add_sentencepiece(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(SENTENCEPIECE)
    writer.add_token_types(SENTENCEPIECE_TYPES)
    writer.add_token_scores(SCORES)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
