"""Save the state of a training, so that it continues bit for bit after its process has died."""

import errno
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from assembler.network.model import Network
from assembler.training.distributed import World
from registry.disk import check_room
from registry.errors import NexusmixError, OutOfSpace, StepFailed

# The choices of a run, beside the state of torch in a checkpoint's folder.
CHOICES = "choices.json"


class Checkpoints:
    """Checkpoint folders `step-N` below one path; the newest complete one is used.

    Only trained tensors, the optimizer and the run's `choices` are saved: the blob store has the
    rest. Choices are numbers that a run measures before its first step. A run that continues takes
    them from its checkpoint: measured again, after an update of the software, they could differ.
    """

    def __init__(self, path: Path, *, network: Network, optimizer: Optimizer, world: World) -> None:
        self._path, self._world = path, world
        self._network, self._optimizer = network, optimizer
        self.choices: Mapping[str, float | None] = self._saved_choices()
        # Flat and by name: with expert parallelism the processes train different parameters, and
        # another process may hold a parameter when the run continues.
        self._options = StateDictOptions(
            ignore_frozen_params=True, flatten_optimizer_state_dict=True, strict=False
        )

    def save(self, step: int) -> None:
        """Save the state after `step` steps; a rename completes it, then older ones are removed.

        Raises OutOfSpace, before it writes where the reserve of the disk would be used, and
        StepFailed when it cannot be saved for another reason.
        """
        state = self._state()
        check_room(self._path, _num_bytes(state))
        unfinished, target = self._path / "unfinished", self._folder(step)
        if self._world.rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        self._world.barrier()
        try:
            with _single_process_allowed():
                save(state, checkpoint_id=unfinished)
        except CheckpointException as error:
            # A part of it would only keep a full disk full.
            shutil.rmtree(unfinished, ignore_errors=True)
            raise _reason(error, self._path) from error
        if self._world.rank == 0:
            (unfinished / CHOICES).write_text(json.dumps(self.choices))
            unfinished.rename(target)
            for older in self._path.glob("step-*"):
                if older != target:
                    shutil.rmtree(older)
        self._world.barrier()

    def resume(self) -> int:
        """Load the newest state, if any; return the number of steps it has completed."""
        step = self._newest()
        if step == 0:
            return 0
        state = self._state()
        with _single_process_allowed():
            load(state, checkpoint_id=self._folder(step))
        set_state_dict(
            self._network,
            self._optimizer,
            model_state_dict=state["network"],
            optim_state_dict=state["optimizer"],
            options=self._options,
        )
        return step

    def _newest(self) -> int:
        """Return the number of steps of the newest checkpoint, 0 without one."""
        folders = self._path.glob("step-*")
        return max((int(folder.name.removeprefix("step-")) for folder in folders), default=0)

    def _saved_choices(self) -> dict[str, float | None]:
        """Return the choices of the newest checkpoint; empty without one."""
        file = self._folder(self._newest()) / CHOICES
        choices: dict[str, float | None] = json.loads(file.read_text()) if file.exists() else {}
        return choices

    def _state(self) -> dict[str, Any]:
        """Return the trained tensors and the optimizer's state."""
        network, optimizer = get_state_dict(self._network, self._optimizer, options=self._options)
        return {"network": network, "optimizer": optimizer}

    def _folder(self, step: int) -> Path:
        return self._path / f"step-{step:08d}"


def _num_bytes(state: Any) -> int:
    """Return the bytes of all tensors of a state in this process."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    return sum(map(_num_bytes, state.values())) if isinstance(state, dict) else 0


def _reason(error: CheckpointException, path: Path) -> NexusmixError:
    """Return our error for torch's, which is no Exception and hides the system's error."""
    for cause, _ in error.failures.values():
        each: BaseException | None = cause
        while each is not None:
            if isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT):
                return OutOfSpace(f"no space left for a checkpoint below {path}")
            each = each.__cause__ or each.__context__
    causes = "; ".join(str(cause) for cause, _ in error.failures.values())
    return StepFailed(f"a checkpoint cannot be saved below {path}: {causes}")


@contextmanager
def _single_process_allowed() -> Iterator[None]:
    """Silence torch's warning that a single process saves only its own state, as intended here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
