"""The choice of the router's domain loss, by how a tiny mix routes its tokens."""

from pathlib import Path

import pytest
import torch

from assembler.network.model import Network
from assembler.recipes.recipe import Finetune
from assembler.training.distributed import World
from assembler.training.domain_loss_choice import choose_domain_loss
from assembler.training.finetune import training_batches
from assembler.training.optimizer import Progress
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.manifests import Manifest
from tests.assembler import tiny_mixes

RECIPE = Finetune(tokens=5760, batch_size=6, sequence_length=32, train="router", dtype="float32")
ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def chosen_q(mix: Manifest, blobs: LocalBlobs, recipe: Finetune = RECIPE) -> float | None:
    documents = tiny_mixes.expert_documents()
    batches = training_batches(
        mix, documents, recipe=recipe, new_experts=frozenset(), base_digest=None, blobs=blobs
    )
    network = Network.from_manifest(mix, blobs, dtype=torch.float32)
    return choose_domain_loss(recipe, batches, network=network, world=ALONE).domain_loss_q


def test_cross_entropy_is_chosen_for_an_untrained_router(blobs: LocalBlobs) -> None:
    assert chosen_q(tiny_mixes.store_mix(blobs), blobs) == 0


def test_lost_share_is_chosen_for_a_trained_router(blobs: LocalBlobs, tmp_path: Path) -> None:
    fast = RECIPE.model_copy(update={"router_learning_rate": 1e-2})
    mix = tiny_mixes.finetuned(tiny_mixes.store_mix(blobs), blobs, tmp_path, recipe=fast)
    assert chosen_q(mix, blobs) == 1


@pytest.mark.parametrize("update", [{"domain_loss_q": 0.5}, {"domain_weight": 0.0}])
def test_a_recipe_with_its_own_q_or_no_domain_loss_is_unchanged(
    blobs: LocalBlobs, update: dict[str, float]
) -> None:
    recipe = RECIPE.model_copy(update=update)
    assert chosen_q(tiny_mixes.store_mix(blobs), blobs, recipe) == recipe.domain_loss_q


def test_a_finetune_uses_the_chosen_loss(blobs: LocalBlobs, tmp_path: Path) -> None:
    mix = tiny_mixes.store_mix(blobs)
    explicit = RECIPE.model_copy(update={"domain_loss_q": 0.0})
    steps = list[Progress]()
    chosen = tiny_mixes.finetuned(
        mix, blobs, tmp_path / "chosen", recipe=RECIPE, on_progress=steps.append
    )
    assert {step.domain_loss_q for step in steps} == {0.0}
    assert chosen == tiny_mixes.finetuned(mix, blobs, tmp_path / "explicit", recipe=explicit)
    other = RECIPE.model_copy(update={"domain_loss_q": 1.0})
    assert chosen != tiny_mixes.finetuned(mix, blobs, tmp_path / "other", recipe=other)
