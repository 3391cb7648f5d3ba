"""Run a finetune in processes of Ray Train, which places and replaces them.

The processes run the same code as under torchrun. Their progress is kept in our own checkpoints, in
a folder that every node sees; Ray keeps none.
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

from assembler.training.parallelism import num_threads
from engine.launch.ray_launcher import connect
from registry.blobs import blob_stores
from registry.blobs.blobs import BlobStore
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput, NexusmixError, StepFailed
from registry.settings import settings

log = structlog.get_logger(__name__)

# How often all processes are restarted because one has died.
MAX_FAILURES = 2


class Train(Protocol):
    """A function that finetunes with the given blob store and returns the resulting manifest."""

    def __call__(self, *, blobs: BlobStore) -> Manifest: ...


def run(train: Train, *, checkpoint_path: Path) -> Manifest:
    """Run `train` in `training_processes` processes and return the first process's result.

    Each process calls `train` as a member of a process group, with the blob store of the settings.
    `train` must continue from `checkpoint_path`. This waits while the cluster has no room. Raises
    Unavailable without a cluster, InvalidInput or StepFailed as soon as `train` raises them, and
    StepFailed when processes died more than `MAX_FAILURES` times.
    """
    connect()
    trainer = TorchTrainer(
        partial(_work, train, _environment()),
        scaling_config=_scaling(),
        torch_config=TorchConfig(backend="nccl" if _has_gpus() else "gloo"),
        run_config=RunConfig(
            # Ray checks in this folder that the nodes share a file system.
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
    """Call `train` in one process.

    Expected errors are returned instead of raised, because Ray restarts a process that raises.
    """
    os.environ.update(environment)
    settings.cache_clear()
    try:
        return train(blobs=blob_stores.open_store(settings()))
    except (InvalidInput, StepFailed) as error:
        # All processes reach this at the same step, so none is left waiting for the others.
        return error


def _scaling() -> ScalingConfig:
    """Return the number of processes and the resources of each."""
    return ScalingConfig(
        num_workers=settings().training_processes,
        use_gpu=_has_gpus(),
        # Ray gives each process this many threads.
        resources_per_worker={"CPU": num_threads()},
    )


def _has_gpus() -> bool:
    return bool(ray.cluster_resources().get("GPU"))


def _environment() -> dict[str, str]:
    """Return our environment variables, which the processes set themselves."""
    # Not passed as Ray's runtime environment, which Ray writes to its logs, passwords included.
    return {name: value for name, value in os.environ.items() if name.startswith("NEXUSMIX_")}


def _last_line(error: TrainingFailedError) -> str:
    return str(error).strip().splitlines()[-1]
