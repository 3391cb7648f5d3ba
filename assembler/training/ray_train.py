"""A finetune in processes of Ray Train: placed by the cluster, and replaced when they die.

They are what a torchrun would start. How far they are stands in our own checkpoints, below a folder
that every node sees; Ray keeps none.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import ray
import structlog
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from assembler.assembly.provenance import num_threads
from engine.launch.ray_launcher import connect
from registry.blobs import blobs as blob_stores
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput, NexusmixError, StepFailed
from registry.settings import settings

log = structlog.get_logger(__name__)

# So often the processes are started anew, all of them, because one has died.
MAX_FAILURES = 2


class Train(Protocol):
    def __call__(self, *, blobs: BlobStore) -> Manifest: ...


def run(train: Train, *, checkpoint_path: Path) -> Manifest:
    """What `train` returns in the first of the settings' `training_processes`.

    Each calls it with the blob store that the settings name, as one of a process group. `train`
    goes on from `checkpoint_path`. Waits while the cluster has no room. Raises Unavailable without
    a cluster, the InvalidInput or StepFailed of `train` at once, and StepFailed when processes died
    more than `MAX_FAILURES` times.
    """
    connect()
    trainer = TorchTrainer(
        partial(_work, train, _environment()),
        scaling_config=_scaling(),
        torch_config=TorchConfig(backend="nccl" if _has_gpus() else "gloo"),
        run_config=RunConfig(
            # Ray checks there that the nodes share a file system.
            storage_path=str(checkpoint_path),
            name="ray",
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    try:
        outcome = trainer.fit().return_value
    except TrainingFailedError as error:
        log.error("the training processes failed", error=str(error))
        raise StepFailed(f"the training processes failed: {_last_line(error)}") from error
    if isinstance(outcome, NexusmixError):
        raise outcome
    assert isinstance(outcome, Manifest)
    return outcome


def _work(train: Train, environment: Mapping[str, str]) -> Manifest | NexusmixError:
    """In each process. What went wrong for a reason is returned: Ray starts raisers anew."""
    os.environ.update(environment)
    settings.cache_clear()
    try:
        return train(blobs=blob_stores.open_store(settings()))
    except (InvalidInput, StepFailed) as error:
        # All processes come to this at the same step: none is left waiting for the others.
        return error


def _scaling() -> ScalingConfig:
    return ScalingConfig(
        num_workers=settings().training_processes,
        use_gpu=_has_gpus(),
        # Ray lets each have as many threads.
        resources_per_worker={"CPU": num_threads()},
    )


def _has_gpus() -> bool:
    return bool(ray.cluster_resources().get("GPU"))


def _environment() -> dict[str, str]:
    # By hand: what Ray is told as a runtime environment it writes to its logs, passwords included.
    return {name: value for name, value in os.environ.items() if name.startswith("NEXUSMIX_")}


def _last_line(error: TrainingFailedError) -> str:
    return str(error).strip().splitlines()[-1]
