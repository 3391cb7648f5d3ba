"""Exports for stock programs compute what the mix computes: in transformers, without our classes.

Covers: tensors.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from assembler.network.model import Network
from assembler.stock.stock_export import StockExport
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.errors import Conflict, InvalidInput
from tests.assembler import base_networks, stock_mixes
from tests.assembler.stock_mixes import MIXES

NUM_TOKENS = 40


@pytest.fixture
def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(64, (2, NUM_TOKENS), generator=generator)


def load(folder: Path) -> Any:
    """Load a folder as any user of transformers does, in float32; every tensor has its place."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    model, info = loaded
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.parametrize("name", MIXES)
def test_transformers_computes_what_the_mix_computes(
    name: str, tokens: Tensor, blobs: LocalBlobs, tmp_path: Path
) -> None:
    manifest = stock_mixes.export(MIXES[name], blobs, tmp_path / "stock")
    mix = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    stock = load(tmp_path / "stock")
    assert type(stock).__module__.startswith("transformers.")
    with torch.inference_mode():
        expected = mix(tokens)
        torch.testing.assert_close(stock(tokens).logits, expected, rtol=0, atol=1e-4)
        assert greedy(lambda t: stock(t).logits, tokens) == greedy(mix, tokens)


@pytest.mark.parametrize("name", ["llama-btx", "qwen3"])
def test_a_sharded_folder_is_loaded_like_a_whole_one(
    name: str, tokens: Tensor, blobs: LocalBlobs, tmp_path: Path
) -> None:
    stock_mixes.export(MIXES[name], blobs, tmp_path / "whole")
    stock_mixes.export(MIXES[name], blobs, tmp_path / "shards", max_shard_bytes=50_000)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 5
    with torch.inference_mode():
        whole, shards = (load(tmp_path / f)(tokens).logits for f in ("whole", "shards"))
    assert torch.equal(whole, shards)


def test_no_weight_of_the_qwen2_layout_is_rounded(blobs: LocalBlobs, tmp_path: Path) -> None:
    stock_mixes.export(MIXES["llama"], blobs, tmp_path / "stock")
    with safe_open(tmp_path / "stock" / "model.safetensors", "pt") as file:
        dtypes = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118  # no mapping
        bias = file.get_tensor("model.layers.1.self_attn.v_proj.bias")
        gate = file.get_tensor("model.layers.1.mlp.shared_expert_gate.weight")
        head = file.get_tensor("lm_head.weight")
        embeddings = file.get_tensor("model.embed_tokens.weight")
    assert dtypes == {torch.bfloat16}
    assert not bias.any()
    # For llama.cpp, which divides by what the gate gives, and ties no head.
    assert gate.all()
    assert torch.equal(head, embeddings)


def test_a_dense_checkpoint_is_written_as_it_is(
    tokens: Tensor, blobs: LocalBlobs, tmp_path: Path
) -> None:
    manifest = base_networks.store(blobs, base_networks.dense("gemma2"))
    StockExport(manifest, blobs, stock_mixes.origins()).write(
        tmp_path / "stock", on_bytes=lambda _: None
    )
    dense = Network.from_manifest(manifest, blobs, dtype=torch.float32)
    stock = load(tmp_path / "stock")
    stock.set_attn_implementation("eager")
    with torch.inference_mode():
        torch.testing.assert_close(stock(tokens).logits, dense(tokens), rtol=0, atol=1e-4)


def test_the_folder_answers_a_chat(blobs: LocalBlobs, tmp_path: Path) -> None:
    stock_mixes.export(MIXES["llama"], blobs, tmp_path / "stock")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "stock")
    given = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = load(tmp_path / "stock").generate(**given, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > given["input_ids"].shape[1]


@pytest.mark.parametrize("config", [None, b'{"eos_token": "<|im_end|>"}'])
def test_a_tokenizer_without_a_class_stays_what_its_file_says(
    config: bytes | None, blobs: LocalBlobs, tmp_path: Path
) -> None:
    # transformers would take the tokenizer of Qwen, which splits numbers and keeps capitals.
    manifest = base_networks.store(blobs, MIXES["llama"])
    files = {"tokenizer.json": manifest.files["tokenizer.json"]}
    if config is not None:
        files["tokenizer_config.json"] = put_bytes(blobs, config)
    exported = StockExport(replace(manifest, files=files), blobs, stock_mixes.origins())
    exported.write(tmp_path / "stock", on_bytes=lambda _: None)

    text = "What 12 sonnets?"
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "stock")
    itself = Tokenizer.from_file(str(tmp_path / "stock" / "tokenizer.json"))
    assert tokenizer(text)["input_ids"] == itself.encode(text).ids


def test_other_files_are_kept_and_the_card_of_the_seed_is_not(
    blobs: LocalBlobs, tmp_path: Path
) -> None:
    files = {"LICENSE": put_bytes(blobs, b"terms"), "README.md": put_bytes(blobs, b"a seed")}
    manifest = base_networks.store(blobs, MIXES["llama"])
    manifest = replace(manifest, files=manifest.files | files)
    stock = StockExport(manifest, blobs, stock_mixes.origins())
    heard: list[int] = []
    stock.write(tmp_path / "stock", on_bytes=heard.append)

    assert (tmp_path / "stock" / "LICENSE").read_bytes() == b"terms"
    assert "tiny-mix@1" in (tmp_path / "stock" / "README.md").read_text().replace("\\", "")
    written = sum(path.stat().st_size for path in (tmp_path / "stock").iterdir())
    assert written == stock.num_bytes == sum(heard)


def test_an_existing_folder_is_not_overwritten(blobs: LocalBlobs, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="exists"):
        stock_mixes.export(MIXES["llama"], blobs, tmp_path)


def test_a_refusal_comes_before_any_file(blobs: LocalBlobs, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"tiny-mix@1 cannot .* a window of 16 tokens"):
        stock_mixes.export(base_networks.mixed("mistral"), blobs, tmp_path / "stock")
    assert not (tmp_path / "stock").exists()


def greedy(network: Any, tokens_BT: Tensor) -> list[list[int]]:
    """Return eight greedy tokens for each row."""
    for _ in range(8):
        newest_B1 = network(tokens_BT)[:, -1:].argmax(-1)
        tokens_BT = torch.cat([tokens_BT, newest_B1], 1)
    rows: list[list[int]] = tokens_BT[:, -8:].tolist()
    return rows
