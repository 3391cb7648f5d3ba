"""Folders as people have them are registered, and a worker finds them sound.

Covers: registry.ingest.fitting.
"""

from pathlib import Path

import pytest
import torch

from assembler.jobs import checkpoint_checks
from registry.blobs.blobs import BlobStore
from registry.catalog import experts
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Cast, Manifest
from registry.database import db
from registry.errors import Incompatible, InvalidCheckpoint, InvalidInput
from service.client.client import Client
from service.schemas.experts import VersionBody
from tests import tiny
from tests.registry.ingest import saved
from tests.service.client.conftest import add_family

EMBEDDINGS = "model.embed_tokens.weight"
NUM_TENSORS = len(tiny.ARCHITECTURE.tensor_shapes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "expert"


def register(client: Client, folder: Path, store: BlobStore) -> tuple[VersionBody, Manifest]:
    """Register a folder, check it as a worker does, and return version and manifest."""
    body = client.register_expert(folder, name="law", family="tiny", license="CC0-1.0")
    with db.transaction() as session:
        version = experts.find_version(session, expert="law", number=body.version)
    checkpoint_checks.check_version(version, store)
    return body, manifests.load(store, experts.checkpoint_digest(version))


@pytest.mark.parametrize(
    ("dtype", "note"),
    [
        (torch.float16, f"float16 -> bfloat16: {NUM_TENSORS} tensors, no number changed"),
        (torch.float32, f"float32 -> bfloat16: {NUM_TENSORS} tensors, no number changed"),
    ],
)
def test_another_dtype_is_cast_to_the_seeds(
    client: Client, family: str, store: BlobStore, folder: Path, dtype: torch.dtype, note: str
) -> None:
    # The numbers were bfloat16 before; float16 has rounded the smallest of them already.
    saved.save(folder, dtype=dtype)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    version, manifest = register(client, folder, store)
    assert version.notes == [note]
    assert {entry.dtype for entry in manifest.tensors.values()} == {"BF16"}
    if dtype == torch.float32:
        assert manifest.tensors == tiny.store_manifest(store, expert=1).tensors
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_numbers_that_are_rounded_are_told_by_tensor(
    client: Client, family: str, store: BlobStore, folder: Path
) -> None:
    saved.save(folder, dtype=torch.bfloat16)

    def train(tensors: dict[str, torch.Tensor]) -> None:
        for name in ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"):
            tensors[name] = tensors[name].float() * 1.001

    saved.change_tensors(folder, train)
    version, manifest = register(client, folder, store)
    assert version.notes == ["float32 -> bfloat16: 2 tensors, numbers rounded"]
    assert manifest.notes.casts["model.layers.0.mlp.up_proj.weight"] == Cast("F32", False)
    assert {entry.dtype for entry in manifest.tensors.values()} == {"BF16"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_family_may_have_another_dtype(
    client: Client, store: BlobStore, tmp_path: Path, folder: Path, dtype: torch.dtype
) -> None:
    add_family(client, saved.save(tmp_path / "other", expert=0, dtype=dtype))
    version, manifest = register(client, tiny.write_checkpoint(folder, expert=1), store)
    names = {torch.float32: ("float32", "F32"), torch.float16: ("float16", "F16")}
    assert {note.partition(":")[0] for note in version.notes} == {f"bfloat16 -> {names[dtype][0]}"}
    assert len(manifest.notes.casts) == NUM_TENSORS
    assert {entry.dtype for entry in manifest.tensors.values()} == {names[dtype][1]}
    assert manifest.config["dtype"] == names[dtype][0]


def test_the_index_names_the_shards(
    client: Client, family: str, store: BlobStore, folder: Path
) -> None:
    saved.save(folder, dtype=torch.bfloat16, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    (folder / "model-00001-of-00009.safetensors").write_bytes(shards[0].read_bytes())
    (folder / "consolidated.safetensors").write_bytes(shards[0].read_bytes())
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "._model-00001-of-00002.safetensors").write_bytes(b"\0")
    (folder / "._config.json").write_bytes(b"\0")
    (folder / "added_tokens.json").write_text("")
    version, manifest = register(client, folder, store)
    assert version.notes == []
    assert manifest.tensors == tiny.store_manifest(store, expert=1).tensors


def test_half_a_shard_set_is_refused(client: Client, family: str, folder: Path) -> None:
    saved.save(folder, dtype=torch.bfloat16, max_shard_size="20KB")
    last = sorted(folder.glob("model-*.safetensors"))[-1]
    last.unlink()
    with pytest.raises(InvalidInput, match=f"index.json says: {last.name} is missing"):
        client.register_expert(folder, name="law", family="tiny", license="CC0-1.0")


def test_tensors_that_say_nothing_are_left_out(
    client: Client, family: str, store: BlobStore, folder: Path
) -> None:
    saved.save(folder, dtype=torch.float32)

    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors[EMBEDDINGS].clone()
        for layer in range(2):
            name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
            tensors[name] = torch.ones(16)

    saved.change_tensors(folder, add)
    version, manifest = register(client, folder, store)
    assert version.notes[1:] == [
        "left out: lm_head.weight, which equals the embeddings",
        "left out: model.layers.0.self_attn.rotary_emb.inv_freq and 1 like it, which is computed"
        " from config.json",
    ]
    assert manifest.tensors == tiny.store_manifest(store, expert=1).tensors


def test_untied_embeddings_that_are_equal_are_tied(
    client: Client, family: str, store: BlobStore, folder: Path
) -> None:
    saved.save(folder, dtype=torch.bfloat16)
    saved.change_tensors(
        folder, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDINGS].clone()})
    )
    saved.change_json(folder / "config.json", tie_word_embeddings=False)
    version, manifest = register(client, folder, store)
    assert version.notes == ["left out: lm_head.weight, which equals the embeddings"]
    assert manifest.architecture.tie_word_embeddings


def test_a_tied_matrix_of_its_own_is_refused(client: Client, family: str, folder: Path) -> None:
    saved.save(folder, dtype=torch.bfloat16)
    saved.change_tensors(
        folder, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDINGS] * 2})
    )
    with pytest.raises(InvalidCheckpoint) as refused:
        client.register_expert(folder, name="law", family="tiny", license="CC0-1.0")
    assert "differs from the embeddings" in refused.value.problems[0].detail


def test_a_mistral_without_a_window_is_a_llama(
    client: Client, family: str, store: BlobStore, folder: Path
) -> None:
    config = saved.save(folder, dtype=torch.bfloat16) / "config.json"
    window = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    saved.change_json(config, **window, sliding_window=64)
    with pytest.raises(InvalidInput):
        client.register_expert(folder, name="law", family="tiny", license="CC0-1.0")
    saved.change_json(config, **window, sliding_window=None)
    _, manifest = register(client, folder, store)
    assert manifest.architecture == tiny.ARCHITECTURE


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": ..., "rope_parameters": ...},
        {"rope_theta": 10_000.0, "rope_parameters": ..., "rope_scaling": None},
        {"attention_bias": None, "mlp_bias": None, "pretraining_tp": 1},
        {"torch_dtype": "bfloat16", "dtype": ...},
    ],
)
def test_a_config_means_what_transformers_reads_from_it(
    client: Client, family: str, store: BlobStore, folder: Path, fields: dict[str, object]
) -> None:
    saved.change_json(saved.save(folder, dtype=torch.bfloat16) / "config.json", **fields)
    _, manifest = register(client, folder, store)
    assert manifest.architecture == tiny.ARCHITECTURE


def test_fields_that_are_left_out_have_the_defaults_of_transformers(
    client: Client, store: BlobStore, tmp_path: Path, folder: Path
) -> None:
    left_out = {"rms_norm_eps": ..., "max_position_embeddings": ..., "head_dim": None}
    defaults = {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "head_dim": 8}
    seed = saved.narrow(tmp_path / "narrow", expert=0)
    saved.change_json(seed / "config.json", **defaults)
    add_family(client, seed)
    saved.change_json(saved.narrow(folder, expert=1) / "config.json", **left_out)
    _, manifest = register(client, folder, store)
    assert manifest.architecture.max_position_embeddings == 2048


def test_a_rope_that_contradicts_itself_is_refused(
    client: Client, family: str, folder: Path
) -> None:
    config = saved.save(folder, dtype=torch.bfloat16) / "config.json"
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    saved.change_json(config, rope_theta=10_000.0, rope_parameters=rope)
    with pytest.raises(InvalidCheckpoint) as refused:
        client.register_expert(folder, name="law", family="tiny", license="CC0-1.0")
    assert "10000.0 at the top and 500000.0" in refused.value.problems[0].detail


def test_added_tokens_are_kept_aside(
    client: Client, family: str, store: BlobStore, folder: Path
) -> None:
    saved.save_with_tokens(folder, tokens=["<tool>", "</tool>"], num_rows=72)
    # A finetune for chats ends its texts with a token of its own.
    saved.change_json(folder / "config.json", eos_token_id=[65, 2], pad_token_id=65)
    version, manifest = register(client, folder, store)
    assert version.notes == [
        "2 added tokens that the family does not have: '<tool>' is 64, '</tool>' is 65",
        "kept aside and not mixed: the last 8 rows of model.embed_tokens.weight",
        "kept aside and not mixed: generation_config.json, tokenizer.json, tokenizer_config.json;"
        " the family's tokenizer is used",
    ]
    seed = tiny.store_manifest(store)
    assert manifest.tensors == tiny.store_manifest(store, expert=1).tensors
    assert manifest.files.items() >= seed.files.items()
    assert manifest.architecture == seed.architecture
    marks = [manifest.config.get(name) for name in ("eos_token_id", "pad_token_id")]
    assert marks == [seed.config["eos_token_id"], None]
    rows = manifest.notes.rows[EMBEDDINGS]
    assert (rows.dtype, rows.shape) == ("BF16", (8, 32))
    assert store.size(rows.digest) == 8 * 32 * 2


def test_a_vocabulary_that_shrank_is_refused_with_the_numbers(
    client: Client, family: str, folder: Path
) -> None:
    saved.save_with_tokens(folder, tokens=[], num_rows=60)
    with pytest.raises(Incompatible, match="has 60 rows, the family's seed has 64"):
        client.register_expert(folder, name="law", family="tiny", license="CC0-1.0")


def test_a_tokenizer_saved_again_is_the_same(
    client: Client, family: str, store: BlobStore, folder: Path
) -> None:
    saved.save(folder, dtype=torch.bfloat16)
    assert (folder / "tokenizer.json").read_bytes() != tiny.tokenizer_files()["tokenizer.json"]
    version, _ = register(client, folder, store)
    assert version.notes == []


def test_other_words_are_refused_before_bytes(client: Client, family: str, folder: Path) -> None:
    saved.save(folder, dtype=torch.bfloat16)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"a": 3', '"A": 3'))
    with pytest.raises(Incompatible, match=r"other words for 1 numbers: 3 is 'A', .* has 'a'"):
        client.register_expert(folder, name="law", family="tiny", license="CC0-1.0")
