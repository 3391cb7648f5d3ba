"""A finetune of two processes, each with a slice of the network, is the finetune of one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from assembler.recipe import Trained
from engine import tensors
from registry import manifests
from registry.blobs import LocalBlobs
from tests.assembler import mixes
from tests.assembler.finetune_process import RECIPE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROWS = "model.layers.1.mlp.gate.weight"
CHECKPOINT_STEPS, LAST_STEP = 4, 6


@pytest.mark.parametrize("train", ["router", "all"])
def test_two_processes_learn_what_one_learns(
    blobs: LocalBlobs, tmp_path: Path, train: Trained
) -> None:
    mix = store_mix(blobs)
    alone = finetuned(blobs, mix, tmp_path / "alone", train=train)
    shared = finetuned(blobs, mix, tmp_path / "shared", num_processes=2, train=train)
    assert len(alone["losses"]) == RECIPE.num_steps
    assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    one, two = (rows(blobs, result["digest"]) for result in (alone, shared))
    assert (one - rows(blobs, mix)).abs().max() > 0.1
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(
    blobs: LocalBlobs, tmp_path: Path, before: int, after: int
) -> None:
    mix = store_mix(blobs)
    whole = finetuned(blobs, mix, tmp_path / "whole")
    finetuned(blobs, mix, tmp_path / "cut", num_processes=before, last=LAST_STEP)
    rest = finetuned(blobs, mix, tmp_path / "cut", num_processes=after)
    assert min(map(int, rest["losses"])) == CHECKPOINT_STEPS + 1
    expected = {step: loss for step, loss in whole["losses"].items() if step in rest["losses"]}
    assert rest["losses"] == pytest.approx(expected, rel=1e-5)


def store_mix(blobs: LocalBlobs) -> str:
    return manifests.store(blobs, mixes.store_mix(blobs))


def rows(blobs: LocalBlobs, digest: str) -> torch.Tensor:
    return tensors.read(blobs, manifests.load(blobs, digest).tensors[ROWS]).float()


def finetuned(
    blobs: LocalBlobs,
    mix: str,
    folder: Path,
    *,
    num_processes: int = 1,
    train: Trained = "router",
    last: int = 0,
) -> dict[str, Any]:
    """What the first process printed; nothing of a run that dies after step `last`."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}")
    script = ("-m", "tests.assembler.finetune_process", str(blobs.root), mix, str(folder))
    done = subprocess.run(
        [sys.executable, *(torchrun if num_processes > 1 else ()), *script, train, str(last)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode == 0) == (last == 0), done.stderr[-4000:]
    return dict(json.loads(done.stdout)) if last == 0 else {}
