"""The finetune of a tiny mix: which tensors change, that it helps, and that it can be resumed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from assembler.network import network_runner
from assembler.network.model import Network
from assembler.network.moe import project
from assembler.recipes.recipe import Finetune, Trained
from assembler.training import domain_loss_choice
from assembler.training.batches import TokenReader
from assembler.training.finetune import training_batches
from assembler.training.losses import domain_loss
from assembler.training.optimizer import Progress, learning_rate_factor
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.manifests import Manifest
from registry.errors import InvalidInput, StepFailed
from tests.assembler import tiny_mixes

RECIPE = Finetune(
    tokens=1920,
    batch_size=6,
    sequence_length=32,
    train="router",
    learning_rate=1e-2,
    router_learning_rate=1e-2,
)


def run(
    mix: Manifest,
    blobs: LocalBlobs,
    folder: Path,
    *,
    recipe: Finetune = RECIPE,
    progress: list[Progress] | None = None,
) -> Manifest:
    reports = [] if progress is None else progress
    return tiny_mixes.finetuned(
        mix, blobs, folder, recipe=recipe, on_progress=reports.append, checkpoint_steps=4
    )


def changed(before: Manifest, after: Manifest) -> set[str]:
    return {name for name, entry in after.tensors.items() if entry != before.tensors[name]}


def test_the_router_learns_and_nothing_else_moves(blobs: LocalBlobs, tmp_path: Path) -> None:
    mix, progress = tiny_mixes.store_mix(blobs), list[Progress]()
    tuned = run(mix, blobs, tmp_path, progress=progress)
    assert {name.split(".mlp.")[1] for name in changed(mix, tuned)} == {
        "gate.projection.0.weight",
        "gate.projection.1.weight",
        "gate.weight",
    }
    assert [p.step for p in progress] == list(range(1, 11))
    assert progress[-1].num_tokens == RECIPE.tokens
    assert progress[-1].eta_seconds == 0
    assert progress[-1].loss < progress[0].loss


def test_held_out_text_is_routed_to_its_own_expert(blobs: LocalBlobs, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"tokens": 3 * RECIPE.tokens})
    tuned = run(tiny_mixes.store_mix(blobs), blobs, tmp_path, recipe=recipe)
    network = Network.from_manifest(tuned, blobs, dtype=torch.float32)
    reader = TokenReader.of(tuned, blobs)
    for number, documents in enumerate(tiny_mixes.expert_documents()):
        windows = reader.windows(documents, split="held-out", length=32)
        assert network_runner.read(network, windows).first_choices[number] > 0.8


def test_rows_are_computed_from_the_stored_projection(blobs: LocalBlobs, tmp_path: Path) -> None:
    tuned = run(tiny_mixes.store_mix(blobs), blobs, tmp_path)
    gate = "model.layers.1.mlp.gate"
    read = {name: tensors.read(blobs, entry) for name, entry in tuned.tensors.items()}
    w1, w2 = (read[f"{gate}.projection.{i}.weight"] for i in range(2))
    rows_ND = project(read["model.domain_embeddings"][1], w1, w2)
    assert torch.equal(read[f"{gate}.weight"], rows_ND.bfloat16())


@pytest.mark.parametrize(
    ("train", "part"),
    [
        ("attention", "self_attn.o_proj"),
        ("shared", "mlp.shared_expert.up_proj"),
        ("experts", "mlp.experts.2.up_proj"),
        ("all", "input_layernorm"),
    ],
)
def test_other_parts_train_beside_the_router(
    blobs: LocalBlobs, tmp_path: Path, train: Trained, part: str
) -> None:
    mix = tiny_mixes.store_mix(blobs)
    recipe = RECIPE.model_copy(update={"train": train})
    moved = changed(mix, run(mix, blobs, tmp_path, recipe=recipe))
    assert f"model.layers.0.{part}.weight" in moved
    assert "model.layers.0.mlp.gate.projection.0.weight" in moved
    assert ("model.embed_tokens.weight" in moved) == (train == "all")


def test_a_linear_router_trains_its_rows(blobs: LocalBlobs, tmp_path: Path) -> None:
    mix = tiny_mixes.store_mix(blobs)
    config = mix.config | {"router": "linear"}
    names = Architecture.from_config(config).tensor_shapes()
    linear = replace(mix, config=config, tensors={name: mix.tensors[name] for name in names})
    assert changed(linear, run(linear, blobs, tmp_path)) == {
        f"model.layers.{layer}.mlp.gate.weight" for layer in range(2)
    }


class Died(Exception):
    """The end of a run in its seventh step."""


def run_until_step_7(mix: Manifest, blobs: LocalBlobs, folder: Path) -> list[Progress]:
    """Die in step 7 of a finetune, which saves every fourth step; return the steps before."""
    steps = list[Progress]()

    def die_in_step_7(progress: Progress) -> None:
        steps.append(progress)
        if progress.step == 7:
            raise Died

    with pytest.raises(Died):
        tiny_mixes.finetuned(
            mix, blobs, folder, recipe=RECIPE, on_progress=die_in_step_7, checkpoint_steps=4
        )
    return steps


def test_an_interrupted_run_resumes_to_the_same_result(blobs: LocalBlobs, tmp_path: Path) -> None:
    mix = tiny_mixes.store_mix(blobs)
    run_until_step_7(mix, blobs, tmp_path / "killed")
    rest = list[Progress]()
    resumed = run(mix, blobs, tmp_path / "killed", progress=rest)
    assert [p.step for p in rest] == list(range(5, 11))
    assert resumed.digest == run(mix, blobs, tmp_path / "whole").digest


def test_a_resumed_run_does_not_choose_its_loss_again(
    blobs: LocalBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mix, rest = tiny_mixes.store_mix(blobs), list[Progress]()
    before = run_until_step_7(mix, blobs, tmp_path)
    # An update of the software that would choose the other loss.
    monkeypatch.setattr(domain_loss_choice, "SURE_SHARE", 0.0)
    run(mix, blobs, tmp_path, progress=rest)
    assert {step.domain_loss_q for step in [*before, *rest]} == {0.0}


def test_an_unfinished_checkpoint_is_ignored(blobs: LocalBlobs, tmp_path: Path) -> None:
    mix = tiny_mixes.store_mix(blobs)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "__0_0.distcp").write_bytes(b"torn")
    progress = list[Progress]()
    run(mix, blobs, tmp_path, progress=progress)
    assert progress[0].step == 1


def texts_of_first_domain(
    mix: Manifest, blobs: LocalBlobs, *, experts: Sequence[int], base: Manifest | None
) -> list[list[list[int]]]:
    """Return the first domain's sequences in the first batches of a finetune."""
    batches = training_batches(
        mix,
        tiny_mixes.expert_documents(experts),
        recipe=RECIPE.model_copy(update={"sequence_length": 8}),
        new_experts=frozenset(),
        base_digest=None if base is None else base.digest,
        blobs=blobs,
    )
    first_batches = [batches.batch(step) for step in range(2)]
    return [batch.tokens[batch.labels == 0].tolist() for batch in first_batches]


def test_a_changed_mix_reads_other_text_of_the_old_domains_than_its_base(
    blobs: LocalBlobs,
) -> None:
    base = tiny_mixes.store_mix(blobs)
    shorter = tiny_mixes.store_mix(blobs, experts=(1, 2))
    all_texts = [
        texts_of_first_domain(base, blobs, experts=(1, 2, 3), base=None),
        texts_of_first_domain(shorter, blobs, experts=(1, 2), base=base),
        texts_of_first_domain(base, blobs, experts=(1, 2, 3), base=base),
        texts_of_first_domain(base, blobs, experts=(1, 2, 3), base=shorter),
    ]
    for number, texts in enumerate(all_texts):
        for others in all_texts[:number]:
            assert texts[0][:2] != others[0][:2]


def test_zero_tokens_change_nothing(blobs: LocalBlobs, tmp_path: Path) -> None:
    mix = tiny_mixes.store_mix(blobs)
    assert run(mix, blobs, tmp_path, recipe=Finetune(tokens=0)) is mix


def test_a_loss_that_is_not_finite_stops_the_run(blobs: LocalBlobs, tmp_path: Path) -> None:
    mix = tiny_mixes.store_mix(blobs)
    name = "model.domain_embeddings"
    broken = tensors.write(blobs, torch.full(mix.tensors[name].shape, torch.nan))
    with pytest.raises(
        StepFailed, match=r"loss is nan in step 1; tokens went .* last good checkpoint: none"
    ):
        run(replace(mix, tensors=mix.tensors | {name: broken}), blobs, tmp_path)


def test_too_little_text_is_an_input_error(blobs: LocalBlobs, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        run(
            tiny_mixes.store_mix(blobs),
            blobs,
            tmp_path,
            recipe=Finetune(tokens=100_000, sequence_length=100_000),
        )


def test_domain_loss_at_q_one_is_the_share_routed_elsewhere() -> None:
    labels_T = torch.tensor([0, 1, 2, 2])
    even = torch.zeros(2, 4, 3)
    assert domain_loss(even, labels_T, weights_T=torch.ones(4), q=1).item() == pytest.approx(2 / 3)
    sure = 100 * torch.eye(3)[labels_T].repeat(2, 1, 1)
    assert domain_loss(sure, labels_T, weights_T=torch.ones(4), q=1).item() == pytest.approx(0)
    assert domain_loss(
        sure, labels_T.flip(0), weights_T=torch.ones(4), q=1
    ).item() == pytest.approx(1)


def test_domain_loss_weighs_tokens() -> None:
    half_right = torch.tensor([[[100.0, 0.0], [100.0, 0.0]]])
    weights_T = torch.tensor([0.5, 1.5])
    loss = domain_loss(half_right, torch.tensor([0, 1]), weights_T=weights_T, q=1)
    assert loss.item() == pytest.approx(0.75)


def test_misleading_tokens_do_not_make_routers_less_sure_at_q_one() -> None:
    """Two thirds of a document's tokens point to its expert, one third points elsewhere."""
    sureness = torch.tensor(2.0, requires_grad=True)
    pointing_TN = torch.eye(2)[torch.tensor([0, 0, 1])]
    labels_T = torch.zeros(3, dtype=torch.long)
    loss = domain_loss(sureness * pointing_TN[None], labels_T, weights_T=torch.ones(3), q=1)
    (gradient,) = torch.autograd.grad(loss, sureness)
    assert gradient.item() < 0


def test_domain_loss_at_q_zero_is_cross_entropy() -> None:
    logits_LTN, labels_T = torch.randn(2, 5, 3), torch.tensor([0, 1, 2, 2, 0])
    losses = [
        domain_loss(logits_LTN, labels_T, weights_T=torch.ones(5), q=q).item() for q in (0, 1e-3)
    ]
    expected = F.cross_entropy(logits_LTN.flatten(0, 1), labels_T.repeat(2)).item()
    assert losses == pytest.approx([expected, expected], rel=1e-2)
    assert losses[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("q", [0.0, 0.25, 1.0])
def test_domain_loss_of_a_probability_that_underflows_is_finite(q: float) -> None:
    logits_LTN = torch.tensor([[[0.0, 200.0]]], requires_grad=True)
    loss = domain_loss(logits_LTN, torch.tensor([0]), weights_T=torch.ones(1), q=q)
    (gradient,) = torch.autograd.grad(loss, logits_LTN)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_smaller_q_gives_larger_gradients_to_a_router_that_is_wrong() -> None:
    gradients = []
    for q in (1.0, 0.25, 0.0):
        logits_LTN = torch.tensor([[[-4.0, 4.0]]], requires_grad=True)
        loss = domain_loss(logits_LTN, torch.tensor([0]), weights_T=torch.ones(1), q=q)
        (gradient,) = torch.autograd.grad(loss, logits_LTN)
        gradients.append(-gradient[0, 0, 0].item())
    assert gradients == sorted(gradients)
    assert gradients[0] < 0.001
    assert gradients[-1] > 0.99


def test_the_learning_rate_warms_up_and_falls_to_a_tenth() -> None:
    recipe = Finetune(tokens=100 * 8 * 128, batch_size=8)
    rates = [learning_rate_factor(recipe, step) for step in range(recipe.num_steps)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
