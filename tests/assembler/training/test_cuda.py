"""A finetune on NVIDIA cards learns what it learns on the CPU, and does not wait for them."""

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
ONE_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")
TWO_CARDS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA cards")


@pytest.mark.parametrize(
    ("num_cards", "degree"),
    [
        pytest.param(1, 1, marks=ONE_CARD),
        pytest.param(2, 1, marks=TWO_CARDS),
        pytest.param(2, 2, marks=TWO_CARDS),
    ],
)
@pytest.mark.parametrize("train", ["router", "all"])
def test_cards_learn_what_the_cpu_learns(
    blobs: LocalBlobs, tmp_path: Path, num_cards: int, degree: int, train: str
) -> None:
    """Over NCCL and FSDP2 where there are two; degree 2 deals the experts out."""
    mix = manifests.store(blobs, tiny_mixes.store_mix(blobs, experts=EXPERTS))
    options = Options(
        blobs=str(blobs.root),
        checkpoints=str(tmp_path / "cards"),
        mix=mix,
        recipe=RECIPE.model_copy(update={"train": train}).model_dump(),
        degree=degree,
        last=0,
    )
    on_cards = finetuned(options, num_processes=num_cards, cards=None)
    options |= {"checkpoints": str(tmp_path / "cpu"), "degree": 1}
    on_cpu = finetuned(options, num_processes=1, cards="")
    assert on_cards["losses"] == pytest.approx(on_cpu["losses"], rel=1e-3)


@ONE_CARD
def test_a_mixture_is_launched_without_waiting_for_its_card() -> None:
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


def finetuned(options: Options, *, num_processes: int, cards: str | None) -> dict[str, Any]:
    """What the first process made; `cards` are those that are seen, None all."""
    module = "tests.assembler.finetune_process"
    command = [sys.executable, "-m", module]
    if num_processes > 1:
        command = [sys.executable, "-m", "assembler.training.torchrun", str(num_processes), module]
    done = subprocess.run(
        [*command, json.dumps([options])],
        cwd=ROOT,
        env=os.environ | ({} if cards is None else {"CUDA_VISIBLE_DEVICES": cards}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout)[0])
