"""The dense trainer on a tiny seed: its output, that it learns, and that it survives an
interruption."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from assembler.training.expert_training import (
    LEARNING_RATES,
    ExpertTraining,
    expert_folder,
    train_expert,
)
from assembler.training.optimizer import Progress
from registry.catalog import documents
from registry.checkpoints.tensor_names import is_ffn
from registry.errors import InvalidInput
from tests import tiny

TRAINING = ExpertTraining(tokens=30 * 4 * 32, batch_size=4, sequence_length=32, learning_rate=3e-3)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    return tiny.write_checkpoint(tmp_path / "seed")


@pytest.fixture
def expert_documents(tmp_path: Path) -> Path:
    path = tmp_path / "own.jsonl"
    path.write_bytes(documents.serialize(tiny.sample_documents(expert=1)))
    return path


def test_only_ffns_change_and_the_domain_is_learned(seed: Path, expert_documents: Path) -> None:
    reports: list[Progress] = []
    folder = train_expert(seed, expert_documents, training=TRAINING, on_progress=reports.append)
    before, after = (load_file(f / "model.safetensors") for f in (seed, folder))
    assert {name for name in before if not before[name].equal(after[name])} == {
        name for name in before if is_ffn(name)
    }
    assert {name: t.dtype for name, t in after.items()} == {n: t.dtype for n, t in before.items()}
    assert (folder / "documents.jsonl").read_bytes() == expert_documents.read_bytes()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (seed / name).read_bytes()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["expert_perplexity"] < 0.75 * metrics["seed_perplexity"]
    assert [progress.step for progress in reports] == list(range(1, 31))


def test_all_parameters_can_be_trained(seed: Path, expert_documents: Path) -> None:
    # At smaller rates the norms would be rounded back to what they were.
    training = TRAINING.model_copy(update={"train": "all", "learning_rate": 1e-2})
    folder = train_expert(seed, expert_documents, training=training, on_progress=lambda _: None)
    before, after = (load_file(f / "model.safetensors") for f in (seed, folder))
    assert not [name for name in before if before[name].equal(after[name])]
    assert {name: t.dtype for name, t in after.items()} == {n: t.dtype for n, t in before.items()}


def test_each_part_has_its_own_learning_rate() -> None:
    rates = {part: ExpertTraining(train=part).learning_rate for part in LEARNING_RATES}
    assert rates == LEARNING_RATES
    assert ExpertTraining(train="lora", learning_rate=1e-2).learning_rate == 1e-2


def test_the_same_inputs_train_once(seed: Path, expert_documents: Path) -> None:
    reports: list[Progress] = []
    first = train_expert(seed, expert_documents, training=TRAINING, on_progress=reports.append)
    again = train_expert(seed, expert_documents, training=TRAINING, on_progress=reports.append)
    assert again == first == expert_folder(seed, expert_documents, training=TRAINING)
    assert len(reports) == TRAINING.num_steps


def test_an_interrupted_run_resumes_to_the_same_expert(
    seed: Path, expert_documents: Path, home: Path
) -> None:
    def die(progress: Progress) -> None:
        if progress.step == 25:
            raise KeyboardInterrupt

    reports: list[Progress] = []
    with pytest.raises(KeyboardInterrupt):
        train_expert(seed, expert_documents, training=TRAINING, on_progress=die)
    resumed = train_expert(seed, expert_documents, training=TRAINING, on_progress=reports.append)
    assert reports[0].step == 21
    weights = (resumed / "model.safetensors").read_bytes()
    resumed.rename(resumed.with_name("resumed"))
    whole = train_expert(
        seed, expert_documents, training=TRAINING, on_progress=lambda progress: None
    )
    assert (whole / "model.safetensors").read_bytes() == weights


def test_a_seed_in_several_files_with_other_things_beside_them(
    seed: Path, expert_documents: Path
) -> None:
    whole = load_file(seed / "model.safetensors")
    short = TRAINING.model_copy(update={"tokens": 4 * 32})
    plain = train_expert(seed, expert_documents, training=short, on_progress=lambda progress: None)
    names = sorted(whole)
    files: dict[str, str] = {}
    for number, part in enumerate((names[:5], names[5:]), start=1):
        path = seed / f"model-0000{number}-of-00002.safetensors"
        save_file({name: whole[name] for name in part}, path)
        files |= dict.fromkeys(part, path.name)
    (seed / "model.safetensors").unlink()
    (seed / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (seed / ".cache" / "huggingface").mkdir(parents=True)
    folder = train_expert(seed, expert_documents, training=short, on_progress=lambda progress: None)

    assert {path.name for path in folder.iterdir()} == {path.name for path in plain.iterdir()}
    made, expected = (load_file(f / "model.safetensors") for f in (folder, plain))
    assert all(made[name].equal(expected[name]) for name in expected)


def test_documents_without_a_held_out_part_are_refused(seed: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_bytes(documents.serialize(tiny.sample_documents(num_held_out=0)))
    with pytest.raises(InvalidInput, match="do not describe a domain"):
        train_expert(seed, path, training=TRAINING, on_progress=lambda progress: None)
