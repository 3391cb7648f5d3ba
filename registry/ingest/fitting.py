"""Fit an owner's checkpoint to the seed of a family, as far as its meaning is clear.

Tensors take the dtypes of the seed. Rows beyond the seed's vocabulary, and with them a tokenizer
that has added tokens, are kept aside: no mix has them. Everything is noted in the manifest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from registry.checkpoints.admission import FLOAT_DTYPES, LM_HEAD, VOCABULARY_MATRICES
from registry.checkpoints.file_names import GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG
from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import EMBEDDINGS
from registry.errors import Incompatible, Problem, pointer
from registry.ingest.sources import Source, TensorSource
from registry.ingest.tokenizer_meaning import compare

# They describe one tokenizer together, and the tokens that end a text.
TOKENIZER_FILES = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    GENERATION_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
MARKS = ("bos_token_id", "eos_token_id", "pad_token_id")
DTYPE_FIELDS = ("dtype", "torch_dtype")
LLAMA = "LlamaForCausalLM"
# What fields that are left out mean in a Mistral, where a Llama has other defaults: transformers'
# MistralConfig.
DEFAULTS_OF_MISTRAL = {"num_key_value_heads": 8, "max_position_embeddings": 131_072}
WINDOW_OF_MISTRAL = 4096


@dataclass(frozen=True, kw_only=True)
class Seed:
    """What an owner must know of a seed: its manifest, and how to read its `tokenizer.json`."""

    manifest: Manifest
    read_tokenizer: Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class OwnCheckpoint:
    """A checkpoint on an owner's disk, by its headers.

    `files` are kept beside the tensors. `kept_files` maps names to digests of files of the seed
    that stand in the place of the owner's. What is kept aside is in `rows`, `tokens` and
    `files_aside`.
    """

    config: dict[str, Any]
    tensors: dict[str, TensorSource]
    files: dict[str, Path]
    kept_files: dict[str, str] = field(default_factory=dict)
    rows: dict[str, TensorSource] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    files_aside: dict[str, Path] = field(default_factory=dict)


def fit(own: OwnCheckpoint, seed: Seed) -> OwnCheckpoint:
    """Return a checkpoint as it is sent to a family with this seed.

    Raises Incompatible if the vocabulary shrank or the tokenizer has other words. Any other
    difference is left as it is, for the registry to refuse.
    """
    own = replace(own, config=_as_llama(own.config, seed.manifest.config))
    return _with_tokenizer(_with_rows(_with_dtypes(own, seed.manifest), seed.manifest), seed)


def _as_llama(config: dict[str, Any], seed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a Mistral without a window as that of a Llama: one and the same network.

    It changes only for a seed that is a Llama.
    """
    has_window = config.get("sliding_window", WINDOW_OF_MISTRAL) is not None
    if has_window or (config.get("model_type"), seed.get("model_type")) != ("mistral", "llama"):
        return config
    given = {name: value for name, value in config.items() if name != "sliding_window"}
    return DEFAULTS_OF_MISTRAL | given | {"model_type": "llama", "architectures": [LLAMA]}


def _with_dtypes(own: OwnCheckpoint, seed: Manifest) -> OwnCheckpoint:
    tensors = {name: _cast(tensor, seed) for name, tensor in own.tensors.items()}
    if tensors == own.tensors:
        return own
    config = {name: value for name, value in own.config.items() if name not in DTYPE_FIELDS}
    config |= {name: seed.config[name] for name in DTYPE_FIELDS if name in seed.config}
    return replace(own, config=config, tensors=tensors)


def _cast(tensor: TensorSource, seed: Manifest) -> TensorSource:
    # A tied output matrix is compared with the embeddings later, so it goes along with them.
    target = seed.tensors.get(tensor.name)
    if target is None and tensor.name == LM_HEAD:
        target = seed.tensors.get(EMBEDDINGS)
    if target is None or {tensor.dtype, target.dtype} - set(FLOAT_DTYPES):
        return tensor
    return tensor.cast(target.dtype)


def _with_rows(own: OwnCheckpoint, seed: Manifest) -> OwnCheckpoint:
    """Keep the rows aside that the vocabulary of the seed does not have."""
    num_rows = seed.architecture.vocab_size
    matrices = {n: own.tensors[n] for n in VOCABULARY_MATRICES if n in own.tensors}
    for name, matrix in matrices.items():
        if len(matrix.shape) == 2 and matrix.shape[0] < num_rows:
            detail = (
                f"tensor {name!r} has {matrix.shape[0]} rows, the family's seed has {num_rows}: the"
                " vocabulary shrank, and a mix needs a row for each token of the seed"
            )
            problem = Problem(pointer("tensors", name), detail)
            raise Incompatible(detail, problems=(problem,))
    longer = {n: m for n, m in matrices.items() if len(m.shape) == 2 and m.shape[0] > num_rows}
    if not longer or any(m.shape[0] != own.config.get("vocab_size") for m in longer.values()):
        return own
    rows = {
        name: matrix.rows(num_rows, matrix.shape[0])
        for name, matrix in longer.items()
        if name in seed.tensors
    }
    shorter = {name: matrix.rows(0, num_rows) for name, matrix in longer.items()}
    config = own.config | {"vocab_size": num_rows} | _marks(own.config, seed.config, num_rows)
    return replace(own, config=config, tensors=own.tensors | shorter, rows=rows)


def _marks(
    config: Mapping[str, Any], seed: Mapping[str, Any], num_rows: int
) -> dict[str, int | list[int] | None]:
    """Return the seed's marks of a text in the place of those that no row is left for."""
    marks = {}
    for name in MARKS:
        value = config.get(name)
        numbers = value if isinstance(value, list) else [value]
        if any(type(number) is int and number >= num_rows for number in numbers):
            marks[name] = seed.get(name)
    return marks


def _with_tokenizer(own: OwnCheckpoint, seed: Seed) -> OwnCheckpoint:
    """Take the tokenizer of the seed where the owner's has other added tokens."""
    path = own.files.get(TOKENIZER)
    if path is None or Source.whole(path).digest() == seed.manifest.files[TOKENIZER]:
        return own
    comparison = compare(path.read_bytes(), seed.read_tokenizer())
    comparison.check_words()
    if comparison.has_same_tokens or comparison.other_parts:
        # Parts that seem to differ are judged by a worker, which has the library that reads them.
        return own
    aside = {name: path for name, path in own.files.items() if name in TOKENIZER_FILES}
    return replace(
        own,
        files={name: path for name, path in own.files.items() if name not in aside},
        kept_files=_tokenizer_files(seed.manifest.files),
        tokens=comparison.more,
        files_aside=aside,
    )


def _tokenizer_files(files: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name in TOKENIZER_FILES}
