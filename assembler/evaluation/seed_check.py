"""Read a short text with the reference network of a seed, before its family is ready."""

import torch

from assembler.compute_dtype import fastest_on_cpu
from assembler.network.model import Network
from assembler.training.optimizer import DTYPES
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidCheckpoint

NUM_TOKENS = 16


def check(seed: Manifest, blobs: BlobStore) -> None:
    """Check that the network of a seed can be built and computes finite numbers.

    Raises InvalidCheckpoint: everything that is made of the seed would be as wrong.
    """
    network = Network.from_manifest(seed, blobs, dtype=DTYPES[fastest_on_cpu()])
    tokens_BT = torch.arange(min(NUM_TOKENS, seed.architecture.vocab_size))[None]
    with torch.inference_mode():
        is_finite = bool(network(tokens_BT).isfinite().all())
    if not is_finite:
        raise InvalidCheckpoint(
            f"the network of this seed, {seed.architecture.base.title}, computes numbers that are"
            " not finite: its weights or its config are not those of a trained model"
        )
