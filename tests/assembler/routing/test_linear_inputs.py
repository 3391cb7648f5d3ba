"""Sketches hold the moments of what attention and the head read, in every base."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from assembler.network.model import Network
from assembler.routing import input_moments, linear_inputs
from assembler.routing.linear_inputs import LinearInputs, Sketch, principal_rows
from assembler.routing.router_inputs import RouterInputs
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog.documents import Document
from registry.checkpoints.file_names import TOKENIZER
from tests import tiny
from tests.assembler import base_networks
from tests.assembler.base_networks import CONFIGS

TOKENS = torch.arange(60).view(3, 20) % 50


def read_by(network: Network) -> LinearInputs:
    sketches = LinearInputs(network, skip=0)
    with torch.inference_mode():
        network.model(TOKENS, cache=None, router_logits=None, project_rows=False)
    return sketches


def moment(rows_RI: Tensor) -> Tensor:
    return rows_RI[0].diag() + rows_RI[1:].T @ rows_RI[1:]


@pytest.mark.parametrize("base", CONFIGS)
def test_every_base_gives_the_moments_of_all_its_inputs(blobs: LocalBlobs, base: str) -> None:
    manifest = base_networks.store(blobs, base_networks.dense(base))
    network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    found = read_by(network).moments()
    shapes = {name: moments.shape for name, moments in found.items()}
    assert shapes == input_moments.shapes(network.architecture)
    assert all(moments.any() for moments in found.values())


def test_the_moment_is_that_of_the_captured_inputs(blobs: LocalBlobs) -> None:
    network = Network.from_manifest(tiny.store_manifest(blobs), blobs, dtype=torch.float32)
    captured: list[Tensor] = []
    output = network.get_submodule("model.layers.1.self_attn.o_proj")
    output.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    rows_RI = torch.from_numpy(read_by(network).moments()["model.layers.1.self_attn.o_proj.input"])
    x_TI = captured[0].flatten(0, 1)
    true_II = x_TI.T @ x_TI / len(x_TI)
    torch.testing.assert_close(moment(rows_RI).diag(), true_II.diag(), rtol=1e-4, atol=1e-6)
    kept = true_II - rows_RI[1:].T @ rows_RI[1:]
    largest = torch.linalg.eigvalsh(true_II).flip(0)[len(rows_RI) - 1]
    # The largest moment that is left is that of the next direction.
    assert torch.linalg.eigvalsh(kept)[-1] < 1.1 * largest


def test_the_head_reads_the_last_states(blobs: LocalBlobs) -> None:
    network = Network.from_manifest(tiny.store_manifest(blobs), blobs, dtype=torch.float32)
    rows_RI = torch.from_numpy(read_by(network).moments()["lm_head.input"])
    # Of normed states with unit weights.
    assert moment(rows_RI).diag().mean().item() == pytest.approx(1, rel=1e-3)


def test_the_token_before_every_text_is_left_out(blobs: LocalBlobs) -> None:
    plain = tiny.store_manifest(blobs)
    files = {**plain.files, TOKENIZER: put_bytes(blobs, tiny.starting_tokenizer())}
    inputs = RouterInputs(replace(plain, files=files), blobs)
    sketches = inputs.watch_linears()
    inputs.moments([Document("1", "one short text", "train")], num_tokens=100)
    [attention, *_] = sketches._sketches.values()
    assert attention._num_tokens == len("one short text") + 1


def test_a_sketch_of_batches_is_near_that_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = 0.8 ** torch.arange(128.0)
    x_TI = torch.randn(600, 128, generator=generator) * scales
    sketch = Sketch()
    for batch in torch.split(x_TI, 200):
        sketch.add(batch)
    true_II = x_TI.T @ x_TI / len(x_TI)
    rows_RI = sketch.rows()
    best = torch.linalg.eigvalsh(true_II)[: -len(rows_RI) + 1].square().sum().sqrt()
    error = (true_II - rows_RI[1:].T @ rows_RI[1:]).norm()
    assert error < 1.05 * best
    torch.testing.assert_close(moment(rows_RI).diag(), true_II.diag())


def test_fewer_tokens_than_directions_are_enough() -> None:
    sketch = Sketch()
    sketch.add(torch.eye(64)[:3])
    rows_RI = sketch.rows()
    assert rows_RI.shape == (1 + input_moments.NUM_DIRECTIONS, 64)
    torch.testing.assert_close(moment(rows_RI), torch.eye(64)[:3].T @ torch.eye(64)[:3] / 3)


def test_principal_rows_never_exceed_the_moment() -> None:
    a_SI = torch.randn(90, 50, generator=torch.Generator().manual_seed(1))
    b_RI = principal_rows(a_SI, linear_inputs.FOLLOWED)
    assert torch.equal(b_RI, principal_rows(a_SI, linear_inputs.FOLLOWED))
    left = torch.linalg.eigvalsh(a_SI.T @ a_SI - b_RI.T @ b_RI)
    assert left[0] > -1e-3
    lengths = b_RI.norm(dim=1)
    assert torch.equal(lengths, lengths.sort(descending=True).values)
