"""A finetune by Ray Train learns what one process learns, even if a process is killed."""

import json
import os
import signal
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from assembler.jobs import step_main, step_process
from assembler.mixes import job_events as job_rows
from assembler.mixes import mix_state
from assembler.recipes.recipe import Finetune
from assembler.training import ray_train
from assembler.training.finetune import finetune
from assembler.training.optimizer import Progress
from engine.vllm_plugin import tensors
from registry.blobs import blob_stores
from registry.checkpoints.manifests import Manifest
from registry.errors import StepFailed
from tests.assembler import tiny_mixes
from tests.assembler.finetune_process import CHECKPOINT_STEPS, RECIPE
from tests.assembler.workers import request_mix, version_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster", "two_processes"),
    # Ray itself uses deprecated functions.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ROWS = "model.layers.1.mlp.gate.weight"
LAST_STEP = 6


@dataclass(frozen=True)
class Notes:
    """Writes reported losses to a file; kills the first process after step `last`."""

    path: Path
    last: int = 0

    def __call__(self, progress: Progress) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([os.getpid(), progress.step, progress.loss]) + "\n")
        if progress.step == self.last and len(self.losses()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def losses(self) -> dict[int, dict[int, float]]:
        """Return losses by process, in the order in which they began, and step."""
        losses: dict[int, dict[int, float]] = {}
        for line in self.path.read_text().splitlines():
            pid, step, loss = json.loads(line)
            losses.setdefault(pid, {})[step] = loss
        return losses


@pytest.fixture
def two_processes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUSMIX_TRAINING_PROCESSES", "2")


def test_two_processes_learn_what_one_learns_after_one_is_killed(tmp_path: Path) -> None:
    blobs = blob_stores.store()
    mix = tiny_mixes.store_mix(blobs)
    alone, two = Notes(tmp_path / "alone"), Notes(tmp_path / "two", last=LAST_STEP)
    undisturbed = trainer(mix, tmp_path / "a", alone)(blobs=blobs)
    result = trained(mix, tmp_path / "t", two)

    [expected] = alone.losses().values()
    (killed, before), (_, after) = two.losses().items()
    assert not psutil.pid_exists(killed)
    assert list(before) == list(range(1, LAST_STEP + 1))
    assert list(after) == list(range(CHECKPOINT_STEPS + 1, RECIPE.num_steps + 1))
    assert before == pytest.approx({step: expected[step] for step in before}, rel=1e-5)
    assert after == pytest.approx({step: expected[step] for step in after}, rel=1e-5)
    assert (rows(undisturbed) - rows(mix)).abs().max() > 0.1
    torch.testing.assert_close(rows(result), rows(undisturbed), rtol=1e-3, atol=1e-3)


def test_a_diverged_training_is_not_retried(tmp_path: Path) -> None:
    blobs = blob_stores.store()
    mix, name = tiny_mixes.store_mix(blobs), "model.domain_embeddings"
    nan = tensors.write(blobs, torch.full(mix.tensors[name].shape, torch.nan))
    notes = Notes(tmp_path / "notes")
    with pytest.raises(StepFailed, match=r"^the loss is nan in step 1; tokens went"):
        trained(replace(mix, tensors=mix.tensors | {name: nan}), tmp_path / "c", notes)
    assert not notes.path.exists()


def test_a_step_of_a_job_trains_on_the_cluster(database: str) -> None:
    version = request_mix(finetune=Finetune(tokens=12 * 4 * 32, batch_size=4, sequence_length=32))
    step_main.assemble(version.id)
    job_rows.durably(lambda session: mix_state.begin(session, version.id, step="finetune"))
    step_process.run("finetune", version.id, job_id=version.job_id, cancelled=lambda: False)
    done = version_of(version.id)
    assert done.finetuned_digest not in (None, done.assembled_digest)
    events = job_rows.durably(lambda session: job_rows.events_after(session, version.job_id))
    steps = [event.data["step"] for event in events if event.type == "metrics"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 12


def trained(mix: Manifest, folder: Path, notes: Notes) -> Manifest:
    return ray_train.run(trainer(mix, folder, notes), checkpoint_path=folder)


def trainer(mix: Manifest, folder: Path, notes: Notes) -> ray_train.Train:
    return partial(
        finetune,
        mix,
        recipe=RECIPE,
        documents=tiny_mixes.expert_documents(),
        checkpoint_path=folder,
        on_progress=notes,
        checkpoint_steps=CHECKPOINT_STEPS,
    )


def rows(mix: Manifest) -> torch.Tensor:
    return tensors.read(blob_stores.store(), mix.tensors[ROWS]).float()
