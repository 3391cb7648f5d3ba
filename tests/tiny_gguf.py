"""Make tiny GGUF files of `tests.tiny`'s experts, as llama.cpp's converter makes them."""

import json
from pathlib import Path

import gguf
import numpy as np

from registry.checkpoints import numpy_tensors
from registry.checkpoints.numpy_tensors import Floats
from tests import tiny

PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tokens() -> list[str]:
    """Return the tokens in order; rows that have none are filled up."""
    content = json.loads(tiny.tokenizer_files()["tokenizer.json"])
    vocabulary = content["model"]["vocab"]
    return [*vocabulary, *(f"[PAD{n}]" for n in range(len(vocabulary), 64))]


def write(
    path: Path,
    *,
    expert: int = 1,
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.BF16,
    architecture: str = "llama",
    head_count: int = 4,
    words: list[str] | None = None,
) -> Path:
    """Write an expert with its matrices in a type of numbers, and return `path`."""
    ours = tiny.ARCHITECTURE
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(ours.max_position_embeddings)
    writer.add_embedding_length(ours.hidden_size)
    writer.add_block_count(ours.num_hidden_layers)
    writer.add_feed_forward_length(ours.intermediate_size)
    writer.add_head_count(head_count)
    writer.add_head_count_kv(ours.num_key_value_heads)
    writer.add_key_length(ours.head_dim)
    writer.add_value_length(ours.head_dim)
    writer.add_layer_norm_rms_eps(ours.rms_norm_eps)
    writer.add_rope_freq_base(ours.rope_theta)
    writer.add_rope_dimension_count(ours.head_dim)
    writer.add_vocab_size(ours.vocab_size)
    listed = words or tokens()
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(listed)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(listed))
    for name, values in weights(expert=expert).items():
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            stored = gguf.quantize(values, quantization)
            writer.add_tensor(name, stored, raw_dtype=quantization)
    finish(writer)
    return path


def weights(*, expert: int) -> dict[str, Floats]:
    """Return the tensors by their names in the file, queries and keys interleaved."""
    made = {}
    for name, data in tiny.tensors(expert=expert).items():
        shape = tiny.ARCHITECTURE.tensor_shapes()[name]
        values = numpy_tensors.widen(np.frombuffer(data, "<u2"), "BF16").reshape(shape)
        if "q_proj" in name:
            values = interleaved(values, tiny.ARCHITECTURE.num_attention_heads)
        if "k_proj" in name:
            values = interleaved(values, tiny.ARCHITECTURE.num_key_value_heads)
        made[_in_gguf(name)] = np.ascontiguousarray(values)
    return made


def interleaved(values: Floats, num_heads: int) -> Floats:
    """Return rows of queries or keys as llama.cpp's `convert_hf_to_gguf.py` permutes them."""
    halves = values.reshape(num_heads, 2, len(values) // num_heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _in_gguf(name: str) -> str:
    match name.split("."):
        case ["model", "layers", layer, *part, "weight"]:
            return f"blk.{layer}.{PARTS['.'.join(part)]}.weight"
        case ["model", "embed_tokens", "weight"]:
            return "token_embd.weight"
    assert name == "model.norm.weight"
    return "output_norm.weight"
