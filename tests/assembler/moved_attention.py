"""Tiny experts that changed more than FFNs, and moments of what their networks would read."""

from dataclasses import replace

import numpy as np

from assembler.assembly.regression import Member
from assembler.routing import input_moments
from assembler.routing.input_moments import InputMoments
from registry.blobs.blobs import BlobStore
from registry.checkpoints import numpy_tensors
from registry.checkpoints.manifests import Dtype, Manifest
from tests import tiny

QUERY = "model.layers.1.self_attn.q_proj.weight"
EMBEDDINGS = "model.embed_tokens.weight"
NORM = "model.layers.1.input_layernorm.weight"


def store_seed(blobs: BlobStore) -> Manifest:
    """Store the seed of tiny experts in float32, so that nothing hides in its rounding."""
    return _changed(tiny.store_manifest(blobs), blobs, size=0.0, number=0)


def store_expert(blobs: BlobStore, *, number: int, dtype: Dtype = "F32") -> Manifest:
    """Store a tiny expert whose queries, embeddings and a norm differ from the seed's."""
    expert = tiny.store_manifest(blobs, expert=number)
    return _changed(expert, blobs, size=0.1, number=number, dtype=dtype)


def store_moments(blobs: BlobStore, *, number: int) -> str:
    """Store random moments of an expert and return their digest."""
    random = np.random.default_rng(number)
    moments = {
        name: np.abs(random.standard_normal(shape, np.float32))
        for name, shape in input_moments.shapes(tiny.ARCHITECTURE).items()
    }
    return input_moments.write(blobs, moments)


def member(blobs: BlobStore, *, number: int) -> Member:
    return Member(
        checkpoint=store_expert(blobs, number=number),
        moments=InputMoments.of(blobs, store_moments(blobs, number=number)),
    )


def _changed(
    manifest: Manifest, blobs: BlobStore, *, size: float, number: int, dtype: Dtype = "F32"
) -> Manifest:
    entries = {}
    for position, (name, entry) in enumerate(manifest.tensors.items()):
        values = numpy_tensors.read(blobs, entry)
        if name in (QUERY, EMBEDDINGS, NORM):
            random = np.random.default_rng([number, position])
            values = values + np.float32(size) * random.standard_normal(values.shape, np.float32)
        entries[name] = numpy_tensors.write(blobs, values, dtype=dtype)
    return replace(manifest, tensors=entries)
