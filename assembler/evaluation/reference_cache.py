"""Cache the continuations and the noise of a reference for all later comparisons.

The cache keeps the id and the margin of each compared token: four bytes for vocabularies of up to
65,536 tokens. A later candidate costs one forward pass, and the reference nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from assembler.content_cache import made_once
from engine.divergence.metrics import Continuation, Reading, Tokens
from engine.divergence.runners import Runner
from engine.gates.report import software_versions
from registry import cpu_features
from registry.checkpoints.manifests import json_digest
from registry.settings import settings

CONTINUATIONS_FILE = "continuations.safetensors"
READINGS_FILE = "readings.safetensors"
# Goes into the cache key: raise it when the same inputs would give other texts.
VERSION = 2

Varied = Mapping[str, Sequence[Reading]]
# The source of readings: our network, or the engine that serves.
Source = Literal["network", "engine"]


def key_of(reference: str, prefixes: Sequence[Tokens], *, num_tokens: int) -> str:
    """Return the cache key of continuations; `reference` names the model and its end tokens."""
    return json_digest([VERSION, reference, [list(prefix) for prefix in prefixes], num_tokens])


def continuations(
    reference: str,
    prefixes: Sequence[Tokens],
    *,
    num_tokens: int,
    load: Callable[[], Runner],
) -> list[Continuation]:
    """Return the reference's continuation of each prefix; load it only if they are not cached."""
    [texts] = continuations_by_domain(reference, [prefixes], num_tokens=num_tokens, load=load)
    return texts


def continuations_by_domain(
    reference: str,
    domains: Sequence[Sequence[Tokens]],
    *,
    num_tokens: int,
    load: Callable[[], Runner],
) -> list[list[Continuation]]:
    """Return the continuations of the prefixes of each domain. Each domain is cached on its own.

    If one is not cached, all are written together: a network reads its weights once for all texts.
    """

    @cache
    def written() -> list[list[Continuation]]:
        texts = iter(load().write([*chain.from_iterable(domains)], num_tokens=num_tokens))
        return [list(islice(texts, len(prefixes))) for prefixes in domains]

    def write(position: int) -> list[Continuation]:
        return written()[position]

    return [
        _continuations(
            key_of(reference, prefixes, num_tokens=num_tokens), prefixes, partial(write, position)
        )
        for position, prefixes in enumerate(domains)
    ]


def _continuations(
    key: str, prefixes: Sequence[Tokens], write: Callable[[], Sequence[Continuation]]
) -> list[Continuation]:
    def make(folder: Path) -> None:
        save_file(_arrays_of(write()), folder / CONTINUATIONS_FILE)

    arrays = load_file(made_once(_folder("continuations", key), make) / CONTINUATIONS_FILE)
    tokens = _split(arrays["tokens"], arrays["lengths"])
    margins = _split(arrays["margins"], arrays["lengths"])
    return [
        Continuation(tuple(prefix), tuple(ids.tolist()), tuple(leads.tolist()))
        for prefix, ids, leads in zip(prefixes, tokens, margins, strict=True)
    ]


def noise_key(source: Source, reference: str, texts: Sequence[Continuation]) -> str:
    """Return the cache key of a reference's readings of its own texts.

    The readings are noise, so the key includes the software and the processor.
    """
    tokens = [[text.prefix, text.tokens] for text in texts]
    instructions = cpu_features.vector_instructions()
    computed_by = [software_versions(), cpu_features.name(), instructions]
    return json_digest([source, reference, *computed_by, tokens])


def noisy_readings(
    key: str,
    continuations: Sequence[Continuation],
    make: Callable[[Sequence[Continuation]], Varied],
) -> dict[str, list[Reading]]:
    """Return the reference's readings of its texts by variation; `make` them if not cached.

    `key` comes from `noise_key`.
    """

    def save(folder: Path) -> None:
        arrays = {}
        for name, readings in make(continuations).items():
            arrays[f"{name}.predicted"] = _concatenate([r.predicted for r in readings])
            logprobs = [logprob for r in readings for logprob in r.logprobs]
            arrays[f"{name}.logprobs"] = np.array(logprobs, np.float32)
        save_file(arrays, folder / READINGS_FILE)

    arrays = load_file(made_once(_folder("noise", key), save) / READINGS_FILE)
    lengths = np.array([len(c.tokens) for c in continuations])
    by_variation = {}
    for name in dict.fromkeys(name.rpartition(".")[0] for name in arrays):
        predicted = _split(arrays[f"{name}.predicted"], lengths)
        logprobs = _split(arrays[f"{name}.logprobs"], lengths)
        by_variation[name] = [
            Reading(tuple(p.tolist()), tuple(q.tolist()))
            for p, q in zip(predicted, logprobs, strict=True)
        ]
    return by_variation


def num_bytes(key: str) -> int:
    """Return the size of the stored continuations in bytes."""
    return (_folder("continuations", key) / CONTINUATIONS_FILE).stat().st_size


def _arrays_of(texts: Sequence[Continuation]) -> dict[str, NDArray[np.generic]]:
    margins = [lead for text in texts for lead in text.margins]
    return {
        "tokens": _concatenate([text.tokens for text in texts]),
        "margins": np.array(margins, np.float16),
        "lengths": np.array([len(text.tokens) for text in texts], np.uint32),
    }


def _concatenate(texts: Sequence[Tokens]) -> NDArray[np.generic]:
    """Concatenate the ids of all texts, in the smallest integer type that holds them."""
    tokens = list(chain.from_iterable(texts))
    return np.array(tokens, np.min_scalar_type(max(tokens)))


def _split(values: NDArray[np.generic], lengths: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    return np.split(values, np.cumsum(lengths)[:-1])


def _folder(kind: str, key: str) -> Path:
    return settings().cache_path / kind / key[:2] / key[2:]
