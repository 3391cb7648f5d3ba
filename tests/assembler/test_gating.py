"""What the gate of a mix asks before it reads anything."""

from dataclasses import replace

import numpy as np
import pytest

from assembler.gating import check_files, check_routers
from registry import arrays
from registry.blobs import LocalBlobs, put_bytes
from registry.errors import Incompatible, InvalidCheckpoint
from tests import tiny
from tests.assembler import mixes


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "more.json"])
def test_a_mix_with_other_files_than_its_seed_is_refused(name: str, blobs: LocalBlobs) -> None:
    seed, mix = tiny.store_manifest(blobs), mixes.store_mix(blobs)
    check_files(mix, seed)
    damaged = replace(mix, files=mix.files | {name: put_bytes(blobs, b"{}")})
    with pytest.raises(Incompatible, match="other files than its seed") as refused:
        check_files(damaged, seed)
    [problem] = refused.value.problems
    assert problem.pointer == f"/files/{name}"


def test_a_router_that_does_not_know_an_expert_is_refused(blobs: LocalBlobs) -> None:
    mix, name = mixes.store_mix(blobs), "model.layers.1.mlp.gate.weight"
    check_routers(mix, blobs)
    rows_ND = np.array(arrays.read(blobs, mix.tensors[name]))
    rows_ND[2] = 0
    zeroed = arrays.write(blobs, rows_ND, dtype=mix.tensors[name].dtype)
    damaged = replace(mix, tensors=mix.tensors | {name: zeroed})
    with pytest.raises(InvalidCheckpoint, match="does not know an expert") as refused:
        check_routers(damaged, blobs)
    [problem] = refused.value.problems
    assert (problem.pointer, problem.detail) == (f"/tensors/{name}", "row 2 is zero")
    # Nothing is ever sent to one that is disabled.
    check_routers(replace(damaged, config=mix.config | {"disabled_experts": [2]}), blobs)


def test_rows_that_are_zero_for_a_reason(blobs: LocalBlobs) -> None:
    """A routed seed stands at the centre of all domains, and gates of attention begin even."""
    check_routers(mixes.store_mix(blobs, combine="sum", shared_expert=False), blobs)
    check_routers(mixes.store_mix(blobs, attention="experts"), blobs)
