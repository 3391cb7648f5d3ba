"""A folder that is made of a GGUF file has its network and its tokenizer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from assembler.demo import gguf_folder
from registry.checkpoints.architecture import Architecture
from tests import tiny
from tests.assembler.demo import seed_files

OF_BYTES = [(seed_files.LLAMA, "smollm"), (seed_files.QWEN2, "qwen2")]


@pytest.mark.parametrize(
    ("architecture", "splits"),
    [*OF_BYTES, (seed_files.GEMMA3, "")],
    ids=["llama", "qwen2", "gemma3"],
)
def test_the_network_of_the_file_comes_back(
    tmp_path: Path, architecture: Architecture, splits: str
) -> None:
    seed_files.write(tmp_path / "whole.gguf", architecture, splits=splits)
    gguf_folder.write(tmp_path / "whole.gguf", tmp_path)

    config = json.loads((tmp_path / "config.json").read_text())
    assert Architecture.from_config(config) == architecture
    assert (config["pad_token_id"], config["dtype"]) == (0, "bfloat16")
    tensors = load_file(tmp_path / "model.safetensors")
    expected = seed_files.weights(architecture)
    assert tensors.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(tensors[name].float().numpy(), values, err_msg=name)


@pytest.mark.parametrize(("architecture", "splits"), OF_BYTES, ids=["llama", "qwen2"])
def test_the_tokenizer_of_the_file_comes_back(
    tmp_path: Path, architecture: Architecture, splits: str
) -> None:
    seed_files.write(tmp_path / "whole.gguf", architecture, splits=splits)
    gguf_folder.write(tmp_path / "whole.gguf", tmp_path)

    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == len(seed_files.WORDS) + 2
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["chat_template"] == tiny.CHAT_TEMPLATE
    assert (config["eos_token"], config["model_max_length"]) == (seed_files.END, 256)


def test_a_base_model_has_no_chat_template(tmp_path: Path) -> None:
    seed_files.write(tmp_path / "whole.gguf", seed_files.GEMMA3, splits="")
    gguf_folder.write(tmp_path / "whole.gguf", tmp_path)

    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert "chat_template" not in config
    assert (config["bos_token"], config["unk_token"]) == ("<bos>", "<unk>")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "splits"),
    [(seed_files.QWEN2, "qwen2"), (seed_files.GEMMA3, "")],
    ids=["qwen2", "gemma3"],
)
def test_weights_equal_those_of_transformers(
    tmp_path: Path, architecture: Architecture, splits: str
) -> None:
    from transformers import AutoModelForCausalLM

    path = seed_files.write(tmp_path / "whole.gguf", architecture, splits=splits)
    gguf_folder.write(path, tmp_path)
    # By another folder, since transformers would read the safetensors of this one.
    other = tmp_path / "other"
    other.mkdir()
    path.rename(other / path.name)
    model = AutoModelForCausalLM.from_pretrained(other, gguf_file=path.name, dtype=torch.float32)
    theirs = model.state_dict()
    # Theirs are the few bits of `token_embd`.
    ours = load_file(tmp_path / "model.safetensors")
    del ours["model.embed_tokens.weight"]
    for name, tensor in ours.items():
        rounded = theirs[name].to(torch.bfloat16)
        torch.testing.assert_close(tensor, rounded, rtol=0, atol=0, msg=name)
