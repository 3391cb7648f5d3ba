"""Read a text with both networks of a seed, the reference and vLLM, before its family is ready."""

from collections.abc import Sequence
from pathlib import Path

import torch

from assembler.compute_dtype import fastest_on_cpu
from assembler.evaluation.runner_errors import as_ours
from assembler.network import network_runner
from assembler.network.model import Network
from assembler.training.optimizer import DTYPES
from engine.divergence.metrics import Continuation, Reading
from engine.vllm_build import serving_dtype
from engine.vllm_server import vllm_process
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidCheckpoint

NUM_TOKENS = 16
NUM_SERVED_TOKENS = 64
# Nats by which the log-probabilities of vLLM may differ from those of the reference, on average. On
# these tokens, which make no text, SmolLM2's differ by 1e-4; a wrong norm differs by whole nats.
MAX_DIFFERENCE = {"float32": 1e-3, "bfloat16": 0.1}


def check(seed: Manifest, blobs: BlobStore) -> None:
    """Check that the network of a seed can be built and computes finite numbers.

    Raises InvalidCheckpoint: everything that is made of the seed would be as wrong.
    """
    network = Network.from_manifest(seed, blobs, dtype=DTYPES[fastest_on_cpu()])
    tokens_BT = torch.tensor([_tokens(seed, NUM_TOKENS)])
    with torch.inference_mode():
        is_finite = bool(network(tokens_BT).isfinite().all())
    if not is_finite:
        raise InvalidCheckpoint(
            f"the network of this seed, {seed.architecture.base.title}, computes numbers that are"
            " not finite: its weights or its config are not those of a trained model"
        )


@as_ours()
def check_served(seed: Manifest, blobs: BlobStore, *, log_path: Path) -> None:
    """Check that vLLM computes what the reference network does; it writes to `log_path`.

    Raises InvalidCheckpoint when they differ: mixes of the family would be served as something
    else than what was made. Raises EngineFailed when vLLM does not serve the seed.
    """
    first, *rest = _tokens(seed, NUM_SERVED_TOKENS)
    text = [Continuation((first,), tuple(rest))]
    with vllm_process.serving(seed, blobs=blobs, log_path=log_path) as running:
        network = Network.from_manifest(seed, blobs, dtype=torch.float32)
        [expected] = network_runner.runner(network).read(text)
        running.wait_ready()
        [found] = running.runner().read(text)
    difference = mean_difference(expected, found)
    limit = MAX_DIFFERENCE[serving_dtype()]
    if not difference <= limit:
        raise InvalidCheckpoint(
            f"vLLM reads a text differently than the reference network of this seed,"
            f" {seed.architecture.base.title}: its log-probabilities differ by {difference:.2g}"
            f" nats on average, and may by {limit:g}"
        )


def mean_difference(expected: Reading, found: Reading) -> float:
    """Return by how many nats two readings of one text differ on average."""
    pairs = zip(expected.logprobs, found.logprobs, strict=True)
    return sum(abs(a - b) for a, b in pairs) / len(expected.logprobs)


def _tokens(seed: Manifest, count: int) -> Sequence[int]:
    """Return the first tokens of the vocabulary: any tokens show what a network computes."""
    return range(min(count, seed.architecture.vocab_size))
