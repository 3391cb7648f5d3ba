"""What the gate of a mix asks before it reads anything."""

from dataclasses import replace

import pytest

from assembler.gating import check_files
from registry.blobs import LocalBlobs, put_bytes
from registry.errors import Incompatible
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
