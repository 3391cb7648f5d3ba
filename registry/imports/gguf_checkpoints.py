"""Find the place of each tensor of a GGUF file in the seed of a family.

Config and tokenizer are the seed's; the file must agree with them.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from registry.checkpoints.manifests import Manifest
from registry.checkpoints.tensor_names import EMBEDDINGS, LM_HEAD, WEIGHT
from registry.errors import Incompatible, Problem, pointer
from registry.imports import gguf_names
from registry.imports.gguf_header import GgufHeader, GgufTensor
from registry.imports.gguf_names import Layout

TOKENS = "tokenizer.ggml.tokens"
# GGUF stores these in float32, so that 1e-05 is read as 9.999999747378752e-06.
PRECISION = 1e-6


def plan(header: GgufHeader, seed: Manifest) -> dict[str, GgufTensor]:
    """Return the tensor of the file for each tensor of the seed.

    Raises Incompatible with everything in which the file is another network than the seed.
    """
    kind = header.metadata.get("general.architecture")
    expected = seed.config["model_type"]
    layout = gguf_names.LAYOUTS.get(kind) if isinstance(kind, str) else None
    if not isinstance(kind, str) or layout is None or layout.model_type != expected:
        known = ", ".join(sorted(gguf_names.LAYOUTS))
        detail = f"is {kind!r}, the family's seed is {expected!r}; GGUF files are read of: {known}"
        problem = Problem("/metadata/general.architecture", detail)
        raise Incompatible("the GGUF file does not fit its family", problems=(problem,))
    found = tensors_of(header, layout, is_tied=seed.architecture.tie_word_embeddings)
    problems = [*_setting_problems(header.metadata, kind, seed), *_misfits(found, seed)]
    if problems:
        raise Incompatible("the GGUF file does not fit its family", problems=tuple(problems))
    return {name: found[name] for name in seed.tensors}


def check_tokens(header: GgufHeader, tokenizer: bytes) -> None:
    """Check that each token of the seed's `tokenizer.json` has its number in the file too.

    Raises Incompatible with the first that has not. Rows behind the last token fill up.
    """
    tokens: Sequence[str] | None = header.metadata.get(TOKENS)
    content = json.loads(tokenizer)
    vocabulary = content["model"]["vocab"]
    named = dict(vocabulary if isinstance(vocabulary, dict) else {})
    named |= {token["content"]: token["id"] for token in content.get("added_tokens", ())}
    for token, number in sorted(named.items(), key=lambda item: item[1]):
        theirs = tokens[number] if tokens and number < len(tokens) else None
        if theirs != token:
            detail = f"has {theirs!r} as token {number}, the family's tokenizer has {token!r}"
            problem = Problem(pointer("metadata", TOKENS), detail)
            raise Incompatible("the GGUF file has another vocabulary", problems=(problem,))


def summary(tensors: Mapping[str, GgufTensor]) -> str:
    """Return a sentence for people: how the weights were stored."""
    counts = Counter(tensor.type for tensor in tensors.values())
    kinds = ", ".join(f"{kind} ({count} tensors)" for kind, count in counts.most_common())
    return f"GGUF file, dequantized from {kinds}"


def tensors_of(header: GgufHeader, layout: Layout, *, is_tied: bool) -> dict[str, GgufTensor]:
    """Return the tensors by the names of transformers, or by their own where these have none.

    Tied embeddings and output layer become one tensor: the copy with more bits.
    """
    found = {}
    for name, tensor in header.tensors.items():
        found[gguf_names.in_transformers(name, layout) or name] = tensor
    head = LM_HEAD + WEIGHT
    if is_tied and head in found:
        # Some files repeat the embeddings as the output layer, stored in more bits.
        output = found.pop(head)
        embeddings = found.get(EMBEDDINGS, output)
        if output.shape == embeddings.shape and output.num_bytes >= embeddings.num_bytes:
            found[EMBEDDINGS] = output
    return found


def _setting_problems(metadata: Mapping[str, Any], kind: str, seed: Manifest) -> Iterator[Problem]:
    ours = seed.architecture
    expected = {
        "attention.head_count": ours.num_attention_heads,
        "attention.head_count_kv": ours.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": ours.rms_norm_eps,
        "rope.freq_base": ours.rope_theta,
    }
    if (window := ours.base_fields.get("sliding_window")) is not None:
        expected["attention.sliding_window"] = window
    for name, value in expected.items():
        key = f"{kind}.{name}"
        theirs = metadata.get(key)
        is_equal = isinstance(theirs, int | float) and abs(theirs - value) <= PRECISION * value
        # Files of the first Llamas leave out the base of their positions.
        if not is_equal and not (theirs is None and name == "rope.freq_base" and value == 1e4):
            detail = f"is {theirs!r}, the family's seed has {value!r}"
            yield Problem(pointer("metadata", key), detail)
    scaling = metadata.get(f"{kind}.rope.scaling.type")
    if scaling not in (None, "none"):
        at = pointer("metadata", f"{kind}.rope.scaling.type")
        yield Problem(at, f"is {scaling!r}: positions are scaled, the family's seed scales none")


def _misfits(found: Mapping[str, GgufTensor], seed: Manifest) -> Iterator[Problem]:
    for name, entry in seed.tensors.items():
        at = pointer("tensors", name)
        if name not in found:
            yield Problem(at, f"the file has no {name}")
        elif found[name].shape != entry.shape:
            actual, shape = list(found[name].shape), list(entry.shape)
            yield Problem(at, f"{name} is {actual}, the family's seed has {shape}")
    for name in found.keys() - seed.tensors.keys():
        yield Problem(pointer("tensors", name), f"{name} has no place in the family's network")
