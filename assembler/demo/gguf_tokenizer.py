"""Make a tokenizer again from the metadata of a GGUF file.

A tokenizer of bytes (`gpt2`) names its way to split text (`tokenizer.ggml.pre`); the expressions
here are those of the models' own `tokenizer.json`. One of SentencePiece is called `llama`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from assembler.demo import gguf_sentencepiece, gguf_tokens
from assembler.demo.gguf_tokens import KEY

# Name of a role in Hugging Face's files -> its name in GGUF files.
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# Words with a sign before them, single digits, signs with line ends after them, white space.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _smollm() -> PreTokenizer:
    """Return single digits, then GPT-2's words."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _qwen2() -> PreTokenizer:
    words = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([words, in_bytes])


PRE_TOKENIZERS: Mapping[str, Callable[[], PreTokenizer]] = {"smollm": _smollm, "qwen2": _qwen2}
NORMALIZERS: Mapping[str, Callable[[], Normalizer]] = {"qwen2": normalizers.NFC}


def of(metadata: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a file."""
    return MODELS[metadata[f"{KEY}model"]](metadata)


def special_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens that `config.json` names: begin, end, padding."""
    ids = _role_ids(metadata)
    return {f"{role}_token_id": ids[role] for role in ("bos", "eos", "pad") if role in ids}


def config(metadata: Mapping[str, Any], *, context: int) -> dict[str, Any]:
    """Return `tokenizer_config.json` for a network of that context.

    A base model has no chat template.
    """
    tokens, template = metadata[f"{KEY}tokens"], metadata.get("tokenizer.chat_template")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        **({"chat_template": template} if template else {}),
        **{f"{role}_token": tokens[number] for role, number in _role_ids(metadata).items()},
    }


def _of_bytes(metadata: Mapping[str, Any]) -> Tokenizer:
    tokens = gguf_tokens.listed(metadata)
    merges = [tuple(pair.split(" ")) for pair in metadata[f"{KEY}merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=gguf_tokens.vocabulary(tokens), merges=merges))
    splits = metadata[f"{KEY}pre"]
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[splits]()
    if splits in NORMALIZERS:
        tokenizer.normalizer = NORMALIZERS[splits]()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(gguf_tokens.added(tokens, normalized=False))
    return tokenizer


MODELS: Mapping[str, Callable[[Mapping[str, Any]], Tokenizer]] = {
    "gpt2": _of_bytes,
    "llama": gguf_sentencepiece.of,
}


def _role_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    keys = {role: f"{KEY}{name}_token_id" for role, name in ROLES.items()}
    return {role: metadata[key] for role, key in keys.items() if key in metadata}
