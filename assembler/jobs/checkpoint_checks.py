"""Check a checkpoint as its readers read it: config, tokenizer and chat template by transformers.

This needs transformers and renders a stranger's template, so it runs in a process of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from jinja2 import TemplateError, TemplateSyntaxError
from transformers import (
    CONFIG_MAPPING,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)

from assembler import tokenizer_file
from assembler.time_limit import time_limit
from engine.vllm_plugin import model_folder
from engine.vllm_plugin.config import NexusConfig
from registry.blobs.blobs import BlobStore, get_bytes
from registry.catalog import experts, uploads
from registry.catalog.documents import sample_evenly
from registry.checkpoints import manifests
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.config_fields import MIX
from registry.checkpoints.file_names import (
    CHAT_TEMPLATE,
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
)
from registry.checkpoints.manifests import Manifest
from registry.database.tables import ExpertVersion, Family
from registry.errors import InvalidCheckpoint, NexusmixError, Problem, pointer
from registry.ingest import tokenizer_meaning
from registry.settings import settings

CHAT = [{"role": "user", "content": "Hello"}]
# A template that renders a short chat for longer would keep every user waiting.
TEMPLATE_SECONDS = 5.0
MAX_REASON = 300


def check_family(family: Family, blobs: BlobStore, *, log_path: Path) -> None:
    """Check all of a seed before it is ready; vLLM writes to `log_path`.

    Raises Conflict for lost blobs, InvalidCheckpoint, and EngineFailed.
    """
    # Imported here: the check of an expert needs no torch.
    from assembler.evaluation import seed_check

    uploads.check_family(blobs, family)
    seed = manifests.load(blobs, family.seed_digest)
    check_readers(seed, blobs, texts=["a text"])
    seed_check.check(seed, blobs)
    if settings().serve_seeds:
        seed_check.check_served(seed, blobs, log_path=log_path)


def check_version(version: ExpertVersion, blobs: BlobStore) -> None:
    """Check all of an expert's version before its domain is embedded.

    Raises Conflict for lost blobs, InvalidCheckpoint, Incompatible if it does not fit the seed, and
    InvalidInput for its documents.
    """
    parsed = uploads.check_expert_version(blobs, version)
    manifest = manifests.load(blobs, experts.checkpoint_digest(version))
    seed = manifests.load(blobs, version.expert.family.seed_digest)
    check_same_tokens(manifest, seed, blobs)
    check_readers(manifest, blobs, texts=sample_evenly(parsed))


def check_same_tokens(manifest: Manifest, seed: Manifest, blobs: BlobStore) -> None:
    """Check that a text has the same tokens in both. Raises Incompatible, and InvalidCheckpoint."""
    digests = (manifest.files[TOKENIZER], seed.files[TOKENIZER])
    if digests[0] == digests[1]:
        return
    # The library writes both in its present form, with all defaults.
    own, family = (
        tokenizer_file.read(get_bytes(blobs, digest)).to_str().encode() for digest in digests
    )
    comparison = tokenizer_meaning.compare(own, family)
    comparison.check_words()
    comparison.check_parts()


def check_readers(manifest: Manifest, blobs: BlobStore, *, texts: Sequence[str]) -> None:
    """Check that programs read from a checkpoint what we read. Raises InvalidCheckpoint."""
    with TemporaryDirectory(prefix="nexusmix-check-") as root:
        folder = model_folder.materialize(manifest, blobs, root=Path(root))
        _check_config(manifest)
        tokenizer = tokenizer_file.read((folder / TOKENIZER).read_bytes())
        tokenizer_file.check_fits(tokenizer, vocab_size=manifest.architecture.vocab_size)
        tokenizer_file.check_reads(tokenizer, texts)
        with _refusing(TOKENIZER_CONFIG, "is not read by transformers"):
            theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        _check_template(theirs, folder)
        if (folder / GENERATION_CONFIG).exists():
            with _refusing(GENERATION_CONFIG, "is not read by transformers"):
                GenerationConfig.from_pretrained(folder, local_files_only=True)


def _check_config(manifest: Manifest) -> None:
    """Compare what transformers reads from `config.json` with what we read."""
    with _refusing(CONFIG, "is not read by transformers"):
        config = deepcopy(manifest.config)
        kind = NexusConfig if config["model_type"] == MIX else CONFIG_MAPPING[config["model_type"]]
        theirs = Architecture.from_config(kind.from_dict(config).to_dict())
    ours = manifest.architecture
    problems = tuple(
        Problem(
            pointer("config", field.name),
            f"is {getattr(ours, field.name)!r} to us and {getattr(theirs, field.name)!r} to"
            " transformers: write it in one place, as transformers does",
        )
        for field in fields(Architecture)
        if getattr(ours, field.name) != getattr(theirs, field.name)
    )
    if problems:
        raise InvalidCheckpoint(f"{CONFIG} means different networks", problems=problems)


def _check_template(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Render the shortest chat, if there is a template."""
    if not tokenizer.chat_template:
        return
    name = CHAT_TEMPLATE if (folder / CHAT_TEMPLATE).exists() else TOKENIZER_CONFIG
    late = TimeoutError(f"it takes more than {TEMPLATE_SECONDS:g} s for one short message")
    with (
        _refusing(name, "has a chat template that cannot be rendered"),
        time_limit(TEMPLATE_SECONDS, late),
    ):
        tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)


@contextmanager
def _refusing(name: str, what: str) -> Iterator[None]:
    """Raise InvalidCheckpoint about a file for every error that reading it gives.

    The libraries raise whatever their code meets in a wrong file.
    """
    try:
        yield
    except NexusmixError:
        raise
    except TemplateError as error:
        where = f" in line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        raise _refusal(name, f"{what}{where}: {error}") from error
    except Exception as error:
        raise _refusal(name, f"{what}: {error}") from error


def _refusal(name: str, detail: str) -> InvalidCheckpoint:
    detail = " ".join(detail.split())[:MAX_REASON]
    problem = Problem(pointer("files", name), detail)
    return InvalidCheckpoint(f"{name} {detail}", problems=(problem,))
