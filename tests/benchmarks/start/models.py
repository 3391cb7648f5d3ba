"""Mixes whose engines are started: a tiny one, and one of the shape of the demo's."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from assembler.assembly import upcycle
from assembler.assembly.regression import Member
from assembler.demo import seed_folders, smollm2
from assembler.recipes.mix_architecture import mixture_of
from assembler.routing import router_init
from assembler.routing.router_init import Domains
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.checkpoints.manifests import Manifest, TensorEntry
from registry.checkpoints.tensor_names import is_ffn
from tests.assembler import tiny_mixes
from tests.benchmarks.claims.families.family import stored

NUM_EXPERTS = 3
TINY = "tiny"


def made(blobs: LocalBlobs, *, quick: bool) -> Mapping[str, Manifest]:
    """Return mixes by name; in a quick run the tiny one alone.

    Raises Unavailable if the demo's seed cannot be unpacked.
    """
    mixes = {TINY: tiny_mixes.store_mix(blobs)}
    if not quick:
        mixes[smollm2.SEED.name] = _of_demo_shape(blobs)
    return mixes


def _of_demo_shape(blobs: LocalBlobs) -> Manifest:
    """Return a mix of the demo's seed and three experts, with random routers.

    Nothing is trained: an expert is the seed with another first number in each FFN tensor. So it
    has tensors of its own to be read.
    """
    seed = stored(seed_folders.unpacked(smollm2.SEED), blobs)
    experts = [_other(seed, number, blobs) for number in range(1, NUM_EXPERTS + 1)]
    recipe = tiny_mixes.recipe(preset="linear", experts=range(1, NUM_EXPERTS + 1))
    mix = mixture_of(recipe, seed.architecture, vector_size=tiny_mixes.VECTOR_SIZE)
    nothing = np.zeros((NUM_EXPERTS, 0), np.float32)
    routers = router_init.initial_routers(
        recipe,
        mix,
        seed=seed,
        domains=Domains(states=nothing, vectors=nothing, documents=[]),
        family=None,
        blobs=blobs,
    )
    members = [Member(checkpoint=expert) for expert in experts]
    return upcycle.upcycle(recipe, mix, seed=seed, experts=members, routers=routers, blobs=blobs)


def _other(seed: Manifest, number: int, blobs: LocalBlobs) -> Manifest:
    entries = dict(seed.tensors)
    for name, entry in seed.tensors.items():
        if is_ffn(name):
            data = bytearray(blobs.local_path(entry.digest).read_bytes())
            # The lowest bits of its mantissa.
            data[0] = (data[0] + number) % 256
            entries[name] = TensorEntry(entry.dtype, entry.shape, put_bytes(blobs, bytes(data)))
    return replace(seed, tensors=entries)
