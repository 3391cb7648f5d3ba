"""A training that continues from its checkpoint takes the same steps as one that never stopped."""

from pathlib import Path

import pytest
import torch

from assembler.network.model import Network
from assembler.training.checkpoints import Checkpoints
from assembler.training.distributed import World
from assembler.training.optimizer import optimizer_of
from registry.blobs.blobs import LocalBlobs
from tests import small_disk, tiny

NORM = "model.norm.weight"
ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def training(blobs: LocalBlobs, folder: Path) -> tuple[Network, torch.optim.AdamW, Checkpoints]:
    """Return a network with one trained tensor, its optimizer and its checkpoints."""
    network = Network.from_manifest(tiny.store_manifest(blobs), blobs, dtype=torch.float32)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name == NORM)
    optimizer = optimizer_of([(network.get_parameter(NORM), 1e-2)])
    checkpoints = Checkpoints(folder, network=network, optimizer=optimizer, world=ALONE)
    return network, optimizer, checkpoints


def take_steps(network: Network, optimizer: torch.optim.AdamW, count: int) -> None:
    weight = network.get_parameter(NORM)
    for step in range(count):
        weight.grad = (weight + step).cos()
        optimizer.step()


def test_a_resumed_training_continues_bit_for_bit(blobs: LocalBlobs, folder: Path) -> None:
    network, optimizer, checkpoints = training(blobs, folder)
    take_steps(network, optimizer, 3)
    checkpoints.save(3)
    take_steps(network, optimizer, 2)
    resumed, resumed_optimizer, resumed_checkpoints = training(blobs, folder)
    assert resumed_checkpoints.resume() == 3
    take_steps(resumed, resumed_optimizer, 2)
    assert torch.equal(resumed.get_parameter(NORM), network.get_parameter(NORM))


def test_choices_are_read_with_the_newest_state(blobs: LocalBlobs, folder: Path) -> None:
    network, optimizer, checkpoints = training(blobs, folder)
    assert checkpoints.choices == {}
    take_steps(network, optimizer, 1)
    checkpoints.choices = {"domain_loss_q": 0.5}
    checkpoints.save(1)
    assert training(blobs, folder)[2].choices == {"domain_loss_q": 0.5}


def test_only_the_newest_is_kept(blobs: LocalBlobs, folder: Path) -> None:
    network, optimizer, checkpoints = training(blobs, folder)
    take_steps(network, optimizer, 1)
    for step in (1, 2, 10):
        checkpoints.save(step)
    assert [path.name for path in folder.iterdir()] == ["step-00000010"]
    assert checkpoints.resume() == 10


def test_an_unfinished_save_is_no_checkpoint(blobs: LocalBlobs, folder: Path) -> None:
    (folder / "unfinished").mkdir(parents=True)
    network, optimizer, checkpoints = training(blobs, folder)
    assert checkpoints.resume() == 0
    take_steps(network, optimizer, 1)
    checkpoints.save(1)
    assert [path.name for path in folder.iterdir()] == ["step-00000001"]


FULL = """
import sys
from pathlib import Path
import torch
from assembler.training import checkpoints as module
from assembler.training.checkpoints import Checkpoints
from assembler.training.distributed import World
from assembler.training.optimizer import optimizer_of
from registry.errors import OutOfSpace

class Large(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1 << 20))

network, folder = Large(), Path(sys.argv[1]) / "checkpoints"
world = World(rank=0, size=1, device=torch.device("cpu"))
optimizer = optimizer_of([(network.weight, 1e-2)])
checkpoints = Checkpoints(folder, network=network, optimizer=optimizer, world=world)
folder.mkdir()
try:
    checkpoints.save(1)
except OutOfSpace as error:
    print(error.detail.partition(" below")[0], list(folder.iterdir()), checkpoints.resume())
"""


def test_a_disk_that_fills_meanwhile_is_said_and_left_as_it_was(tmp_path: Path) -> None:
    filled_later = FULL.replace("folder.mkdir()", "module.check_room = lambda *arguments: None")
    assert small_disk.run(filled_later, tmp_path) == "no space left for a checkpoint [] 0\n"


def test_a_checkpoint_begins_only_if_it_fits(tmp_path: Path) -> None:
    num_bytes = 3 * (4 << 20) + 4  # the weight, two moments and the count of steps
    assert small_disk.run(FULL, tmp_path) == f"no room for {num_bytes} bytes [] 0\n"
