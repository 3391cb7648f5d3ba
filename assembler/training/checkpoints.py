"""Where a training stands, kept so that it goes on bit for bit after its process died."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


class Checkpoints:
    """Folders `step-N` below one path; the newest whole one counts.

    Only what trains is kept: the rest is in the blob store.
    """

    def __init__(self, path: Path, *, network: Network, optimizer: Optimizer, world: World) -> None:
        self._path, self._world = path, world
        self._network, self._optimizer = network, optimizer
        # Flat, by names alone: with expert parallelism processes train different parameters, and
        # any of them may be kept by another process when the run goes on.
        self._options = StateDictOptions(
            ignore_frozen_params=True, flatten_optimizer_state_dict=True, strict=False
        )

    def save(self, step: int) -> None:
        """Keep the state after `step` steps; a rename makes it count, then older ones go."""
        unfinished, target = self._path / "unfinished", self._folder(step)
        if self._world.rank == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        self._world.barrier()
        with _alone_is_fine():
            save(self._state(), checkpoint_id=unfinished)
        if self._world.rank == 0:
            unfinished.rename(target)
            for older in self._path.glob("step-*"):
                if older != target:
                    shutil.rmtree(older)
        self._world.barrier()

    def resume(self) -> int:
        """Load the newest state, if there is one; returns how many steps it has behind it."""
        step = max(
            (int(f.name.removeprefix("step-")) for f in self._path.glob("step-*")), default=0
        )
        if step == 0:
            return 0
        state = self._state()
        with _alone_is_fine():
            load(state, checkpoint_id=self._folder(step))
        set_state_dict(
            self._network,
            self._optimizer,
            model_state_dict=state["network"],
            optim_state_dict=state["optimizer"],
            options=self._options,
        )
        return step

    def _state(self) -> dict[str, Any]:
        network, optimizer = get_state_dict(self._network, self._optimizer, options=self._options)
        return {"network": network, "optimizer": optimizer}

    def _folder(self, step: int) -> Path:
        return self._path / f"step-{step:08d}"


@contextmanager
def _alone_is_fine() -> Iterator[None]:
    # It warns that a single process saves a single process's state, which is what is meant.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
