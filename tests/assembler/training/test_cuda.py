"""A finetune on NVIDIA GPUs learns what it learns on the CPU, and never waits for the GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from assembler.network.moe import MoE
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints import manifests
from tests.assembler import tiny_mixes
from tests.assembler.finetune_process import EXPERTS, RECIPE, Options
from tests.assembler.networks import ARCHITECTURES

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 600
ONE_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA cards")


@pytest.mark.parametrize(
    ("num_gpus", "degree"),
    [
        pytest.param(1, 1, marks=ONE_GPU),
        pytest.param(2, 1, marks=TWO_GPUS),
        pytest.param(2, 2, marks=TWO_GPUS),
    ],
)
@pytest.mark.parametrize("train", ["router", "all"])
def test_gpus_learn_what_the_cpu_learns(
    blobs: LocalBlobs, tmp_path: Path, num_gpus: int, degree: int, train: str
) -> None:
    """Two GPUs use NCCL and FSDP2; with degree 2 they use expert parallelism."""
    mix = manifests.store(blobs, tiny_mixes.store_mix(blobs, experts=EXPERTS))
    options = Options(
        blobs=str(blobs.root),
        checkpoints=str(tmp_path / "cards"),
        mix=mix,
        recipe=RECIPE.model_copy(update={"train": train}).model_dump(),
        degree=degree,
        last=0,
    )
    on_gpus = finetuned(options, num_processes=num_gpus, visible_gpus=None)
    options |= {"checkpoints": str(tmp_path / "cpu"), "degree": 1}
    on_cpu = finetuned(options, num_processes=1, visible_gpus="")
    assert on_gpus["losses"] == pytest.approx(on_cpu["losses"], rel=1e-3)


@ONE_GPU
def test_a_mixture_never_synchronizes_with_its_gpu() -> None:
    mixture = MoE(ARCHITECTURES["convex-top-2"]).to("cuda", torch.bfloat16)
    x_TD = torch.randn(16, ARCHITECTURES["convex"].hidden_size).to("cuda", torch.bfloat16)
    x_TD.requires_grad_()

    def run() -> None:
        mixture(x_TD, None)[0].float().sum().backward()

    run()  # loads the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def finetuned(options: Options, *, num_processes: int, visible_gpus: str | None) -> dict[str, Any]:
    """Return the first process's result; `visible_gpus` is None for all GPUs."""
    module = "tests.assembler.finetune_process"
    command = [sys.executable, "-m", module]
    if num_processes > 1:
        command = [sys.executable, "-m", "assembler.training.torchrun", str(num_processes), module]
    done = subprocess.run(
        [*command, json.dumps([options])],
        cwd=ROOT,
        env=os.environ | ({} if visible_gpus is None else {"CUDA_VISIBLE_DEVICES": visible_gpus}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout)[0])
