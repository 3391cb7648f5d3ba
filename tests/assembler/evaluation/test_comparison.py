"""Models in folders, in the store and on servers are compared, or refused.

Covers: comparison_request, comparison_sides.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from assembler.compression import int8_checkpoint
from assembler.evaluation import comparison
from assembler.evaluation.comparison_request import (
    ComparisonRequest,
    DocumentsFile,
    Folder,
    Served,
    Stored,
    Subject,
)
from engine.compression import int8_units
from engine.divergence import noise
from engine.divergence.torch_runner import TorchRunner
from engine.gates.comparison_gate import DivergenceReport
from engine.vllm_server import vllm_process
from registry.blobs import blob_stores
from registry.blobs.blobs import put_bytes
from registry.catalog import documents
from registry.checkpoints import exports, manifests
from registry.errors import Incompatible, InvalidInput
from registry.ingest.checkpoint_folder import CheckpointFolder
from tests import tiny
from tests.assembler import tiny_mixes
from tests.engine.divergence import dialect, tables
from tests.engine.forwarding import forwarded

SHORT: dict[str, Any] = {"prompts_per_domain": 4, "prefix_tokens": 12, "completion_tokens": 8}


@pytest.fixture
def seed(tmp_path: Path) -> Folder:
    return Folder(path=tiny.write_checkpoint(tmp_path / "seed"))


@pytest.fixture
def expert(tmp_path: Path) -> Folder:
    return Folder(path=tiny.write_checkpoint(tmp_path / "expert", expert=1))


@pytest.fixture
def texts(expert: Folder) -> DocumentsFile:
    return DocumentsFile(domain="law", path=expert.path / "documents.jsonl")


def compare(
    reference: Subject,
    candidate: Subject,
    texts: DocumentsFile,
    *,
    on_progress: Callable[[str], None] = lambda _: None,
    **policy: Any,
) -> DivergenceReport:
    request = ComparisonRequest(
        reference=reference, candidate=candidate, texts=(texts,), policy=SHORT | policy
    )
    return comparison.gate(request, blobs=blob_stores.store(), on_progress=on_progress)


def test_a_folder_agrees_with_itself(seed: Folder, texts: DocumentsFile) -> None:
    report = compare(seed, seed, texts)
    [domain] = report.domains
    assert report.passed
    assert (domain.domain, domain.candidate.num_prefixes, domain.candidate.equal_share) == (
        "law",
        4,
        1,
    )
    assert set(domain.variations) == {noise.IN_ONE_PASS, noise.OTHERWISE_BATCHED}


def test_a_compressed_folder_is_read_in_int8(
    seed: Folder, texts: DocumentsFile, tmp_path: Path
) -> None:
    blobs = blob_stores.store()
    plain = CheckpointFolder.read(seed.path).keep(blobs)
    modules = int8_units.modules(int8_units.units(plain, "cpu"))
    int8 = int8_checkpoint.write(plain, modules, target="cpu", blobs=blobs)
    exports.export(int8, blobs, tmp_path / "int8", on_bytes=lambda _: None)
    stored = Stored(ref="tiny@1", manifest_digest=manifests.store(blobs, int8))
    same, other = (
        compare(Folder(path=tmp_path / "int8"), one, texts).domains[0] for one in (stored, seed)
    )
    assert same.candidate == same.noise_floor
    assert other.candidate.perplexity != other.noise_floor.perplexity


def test_an_expert_diverges_from_its_seed(
    seed: Folder, expert: Folder, texts: DocumentsFile
) -> None:
    report = compare(seed, expert, texts)
    assert not report.passed
    assert report.domains[0].candidate.equal_share < 0.9
    example = report.domains[0].examples[0]
    assert example.token != example.predicted_token
    assert example.margin is not None


def test_the_reference_is_not_read_again_for_a_second_candidate(
    seed: Folder, expert: Folder, texts: DocumentsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compare(seed, expert, texts)
    reads: list[int] = []
    read = TorchRunner.read

    def counting(self: TorchRunner, texts: Any) -> Any:
        reads.append(len(texts))
        return read(self, texts)

    monkeypatch.delattr(TorchRunner, "write")
    monkeypatch.setattr(TorchRunner, "read", counting)
    assert compare(seed, expert, texts) == first
    assert reads == [4]


def test_a_mix_of_the_store_is_compared_with_a_folder(seed: Folder, texts: DocumentsFile) -> None:
    store = blob_stores.store()
    mix = tiny_mixes.store_mix(store)
    store_digest = put_bytes(store, mix.to_json())
    report = compare(seed, Stored(ref="mix@1", manifest_digest=store_digest), texts)
    assert report.candidate.name == "mix@1"
    assert not report.passed


def test_another_family_runs_through_transformers(texts: DocumentsFile, tmp_path: Path) -> None:
    folder = gpt2(tmp_path / "gpt2")
    report = compare(folder, folder, texts)
    assert report.passed
    assert report.domains[0].candidate.num_tokens > 4


def test_documents_with_domains_are_compared_by_domain(seed: Folder, tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    by_domain = [
        documents.Document(f"{domain}-{d.id}", d.text, d.split, domain)
        for domain in ("law", "sea")
        for d in tiny.sample_documents(expert=1 + (domain == "sea"))
    ]
    path.write_bytes(documents.serialize(by_domain))
    report = compare(seed, seed, DocumentsFile(domain="unnamed", path=path))
    assert [domain.domain for domain in report.domains] == ["law", "sea"]


def test_progress_is_reported(seed: Folder, texts: DocumentsFile) -> None:
    messages: list[str] = []
    compare(seed, seed, texts, on_progress=messages.append)
    assert messages[0] == "opening both models"
    assert messages[1].endswith("writes law")
    assert messages[-1].endswith("reads law")


def test_too_little_text_is_refused(seed: Folder, texts: DocumentsFile) -> None:
    with pytest.raises(InvalidInput, match="too little held-out text") as refused:
        compare(seed, seed, texts, prefix_tokens=100_000)
    assert "its 3 held-out documents fill no prefix of 100000 tokens" in (
        refused.value.problems[0].detail
    )


def test_every_wrong_field_of_a_policy_is_named(seed: Folder, texts: DocumentsFile) -> None:
    with pytest.raises(InvalidInput) as refused:
        compare(seed, seed, texts, prefix_tokens=0, min_equal_share=2)
    assert {p.pointer for p in refused.value.problems} == {"/prefix_tokens", "/min_equal_share"}


def test_texts_that_are_too_long_for_a_model_are_refused(
    seed: Folder, texts: DocumentsFile
) -> None:
    with pytest.raises(InvalidInput, match="too long together"):
        compare(seed, seed, texts, prefix_tokens=200, completion_tokens=100)


def test_the_context_length_is_found_under_any_name(texts: DocumentsFile, tmp_path: Path) -> None:
    folder = gpt2(tmp_path / "gpt2")
    with pytest.raises(InvalidInput, match="too long together") as refused:
        compare(folder, folder, texts, prefix_tokens=60)
    assert "takes 64 of 69" in refused.value.problems[0].detail


def test_other_tokenizers_are_refused(seed: Folder, expert: Folder, texts: DocumentsFile) -> None:
    path = expert.path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["h"] = vocabulary["h"], vocabulary["a"]
    vocabulary["b"], vocabulary["i"] = vocabulary["i"], vocabulary["b"]
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(Incompatible, match="their tokenizers differ"):
        compare(seed, expert, texts)


@pytest.mark.parametrize(
    ("template", "message"),
    [("{{ messages[-1]['content'] }}", "reads 'what is this?'"), (None, "refuses it")],
)
def test_other_chat_templates_are_refused(
    seed: Folder, expert: Folder, texts: DocumentsFile, template: str | None, message: str
) -> None:
    path = expert.path / "tokenizer_config.json"
    tokenizer_config = json.loads(path.read_text())
    path.write_text(json.dumps(tokenizer_config | {"chat_template": template}))
    with pytest.raises(Incompatible, match="their chat templates differ") as refused:
        compare(seed, expert, texts)
    assert f"{expert} {message}" in str(refused.value)


def test_a_chat_template_in_a_file_of_its_own_is_read(
    seed: Folder, expert: Folder, texts: DocumentsFile
) -> None:
    (expert.path / "chat_template.jinja").write_text(tiny.CHAT_TEMPLATE + "else")
    with pytest.raises(Incompatible, match="their chat templates differ"):
        compare(seed, expert, texts)


def test_another_vocabulary_is_refused(seed: Folder, texts: DocumentsFile, tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match=r"has 64 tokens, .* 70"):
        compare(seed, gpt2(tmp_path / "gpt2", vocab_size=70), texts)


def test_a_server_of_another_vocabulary_is_refused(seed: Folder, texts: DocumentsFile) -> None:
    with (
        dialect.serving(tables.table(1)) as address,
        pytest.raises(Incompatible, match="smaller vocabulary than 64"),
    ):
        compare(seed, Served(address=address, model=dialect.MODEL), texts)


def test_two_servers_are_compared(tmp_path: Path) -> None:
    numbers = documents.Document("1", " ".join(str(1 + i % 4) for i in range(40)), "held-out")
    path = tmp_path / "numbers.jsonl"
    path.write_bytes(documents.serialize([numbers]))
    texts = DocumentsFile(domain="numbers", path=path)
    one, other = tables.table(3, ties=False), tables.table(4, ties=False)
    with dialect.serving(one) as address, dialect.serving(other) as their_address:
        reference = Served(address=address, model=dialect.MODEL)
        same = compare(reference, reference, texts)
        strays = compare(reference, Served(address=their_address, model=dialect.MODEL), texts)
    assert same.passed
    assert not strays.passed
    assert strays.domains[0].examples[0].context.startswith("1 2 3 4")


def test_a_changed_model_at_one_address_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_bytes(documents.serialize([documents.Document("1", "1 2 3 4 " * 9, "held-out")]))
    texts = DocumentsFile(domain="numbers", path=path)
    models = [tables.table(seed, ties=False) for seed in (1, 2)]
    with dialect.serving(lambda context: models[0](context)) as address:
        reference = Served(address=address, model=dialect.MODEL)
        assert compare(reference, reference, texts).passed
        models.reverse()
        again = compare(reference, reference, texts)
    assert again.domains[0].noise_floor.equal_share == 1


@pytest.mark.slow
def test_a_served_model_is_compared_with_its_folder_and_both_are_served(
    seed: Folder, texts: DocumentsFile, tmp_path: Path
) -> None:
    with vllm_process.serving_folder(seed.path, log_path=tmp_path / "log", model="tiny") as running:
        running.wait_ready()
        with forwarded(running.address) as url:
            served = Served(address=f"{url}/v1", model="tiny")
            report = compare(seed, served, texts)
            backwards = compare(served, seed, texts)
    assert report.passed
    assert report.domains[0].candidate.equal_share == 1
    assert noise.SERVED in report.domains[0].variations
    assert backwards.passed
    assert backwards.domains[0].candidate.equal_share == 1


def test_a_folder_without_weights_is_refused(seed: Folder, texts: DocumentsFile) -> None:
    (seed.path / "model.safetensors").unlink()
    with pytest.raises(InvalidInput, match=r"has no \*\.safetensors"):
        compare(seed, seed, texts)


def gpt2(folder: Path, *, vocab_size: int = tiny.ARCHITECTURE.vocab_size) -> Folder:
    config = GPT2Config(
        vocab_size=vocab_size,
        n_embd=32,
        n_layer=1,
        n_head=2,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
    )
    # The constructor has no annotations.
    create: Callable[[GPT2Config], Any] = GPT2LMHeadModel
    create(config).save_pretrained(folder)
    for name, data in tiny.tokenizer_files().items():
        (folder / name).write_bytes(data)
    return Folder(path=folder)
