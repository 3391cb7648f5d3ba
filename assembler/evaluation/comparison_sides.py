"""Open the two models of a comparison: their runner, vocabulary and longest text.

A Llama-family checkpoint or a mix runs as our reference network, any other folder through
transformers; both in float32. A served model runs on its server.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from assembler import tokenizer_file
from assembler.evaluation.comparison_request import Folder, Served, Stored, Subject
from assembler.evaluation.runner_errors import as_ours
from assembler.network import network_runner
from assembler.network.model import Network
from assembler.training.batches import TokenReader, sample_windows
from engine.divergence import transformers_runner
from engine.divergence.metrics import Tokens
from engine.divergence.runners import Runner
from engine.divergence.server_runner import ServerRunner
from engine.vllm_server import vllm_process
from engine.vllm_server.vllm_process import Server
from registry.blobs.blobs import BlobStore, get_bytes
from registry.catalog.documents import Document
from registry.checkpoints import manifests
from registry.checkpoints.architecture import Architecture
from registry.checkpoints.file_names import (
    CHAT_TEMPLATE,
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
)
from registry.checkpoints.int8_config import int8_modules
from registry.checkpoints.manifests import json_digest
from registry.errors import InvalidCheckpoint, InvalidInput
from registry.ingest.folder_contents import check_folder, read_config
from registry.ingest.shards import weight_files

# Environment variable with the key to a served model, the same as for OpenAI's own clients.
KEY_VARIABLE = "OPENAI_API_KEY"
# Limits how much of a document is sent to the tokenizer of a server.
CHARACTERS_PER_TOKEN = 8

# Either of the last two may hold a chat template; where both do, the last one's counts.
VOCABULARY_FILES = (TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE)
# The template, and the special tokens that it may use.
CHAT_FIELDS = ("chat_template", "bos_token", "eos_token", "unk_token", "pad_token")


class Vocabulary(Protocol):
    """A model's tokenizer and chat template."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of these ids, special tokens included."""

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int] | None:
        """Return the ids of a conversation up to the next answer.

        None without a chat template, and for a template that refuses the conversation.
        """

    def prefixes(self, documents: Sequence[Document], *, length: int, count: int) -> list[Tokens]:
        """Return at most `count` prefixes of `length` tokens, spread over the held-out text."""


@dataclass(frozen=True, kw_only=True)
class OpenedSide:
    """One model of a comparison, opened without its weights.

    `key` identifies its greedy texts: a digest of tensors and end tokens, or a server's address and
    description of the model. `load` returns its runner, and loads the weights of a model that is
    not served. `serve` starts our engine with it; None for a served model. `max_tokens` is the
    length of the longest text.
    """

    name: str
    key: str
    vocabulary: Vocabulary
    vocab_size: int | None
    max_tokens: int | None
    load: Callable[[], Runner]
    serve: Callable[..., AbstractContextManager[Server]] | None

    @property
    def is_served(self) -> bool:
        """Tell whether the model runs behind a server that we did not start."""
        return self.serve is None

    def serving(self, log_path: Path) -> AbstractContextManager[Server]:
        """Start our engine with this model; see `engine.vllm_server.vllm_process.serving`."""
        assert self.serve is not None
        return self.serve(log_path=log_path)


class LocalVocabulary:
    """The tokenizer that lies beside the weights."""

    def __init__(self, files: Mapping[str, bytes], *, config: Mapping[str, Any]) -> None:
        """`files` by name, those of `VOCABULARY_FILES` that exist."""
        self._tokenizer = tokenizer_file.read(files[TOKENIZER])
        self._reader = TokenReader(self._tokenizer, config=config)
        stored = json.loads(files.get(TOKENIZER_CONFIG, b"{}"))
        self._chat = {name: stored[name] for name in CHAT_FIELDS if stored.get(name) is not None}
        if CHAT_TEMPLATE in files:
            self._chat["chat_template"] = files[CHAT_TEMPLATE].decode()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, tokens: Sequence[int]) -> str:
        return self._reader.decode(tokens)

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int] | None:
        if "chat_template" not in self._chat:
            return None
        from jinja2 import TemplateError
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # theirs
            tokenizer_object=self._tokenizer, **self._chat
        )
        try:
            text = tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=False
            )
        except TemplateError:
            return None
        return self.encode([str(text)])[0]

    def prefixes(self, documents: Sequence[Document], *, length: int, count: int) -> list[Tokens]:
        windows = self._reader.windows(documents, split="held-out", length=length)
        return [tuple(window) for window in sample_windows(windows, count=count).tolist()]


class ServedVocabulary:
    """The tokenizer of a server. A document gives one prefix: its beginning."""

    def __init__(self, runner: ServerRunner) -> None:
        self._runner = runner
        self.encode, self.decode, self.chat = runner.encode, runner.decode, runner.chat

    def prefixes(self, documents: Sequence[Document], *, length: int, count: int) -> list[Tokens]:
        beginnings = [
            document.text[: CHARACTERS_PER_TOKEN * length]
            for document in documents
            if document.split == "held-out"
        ]
        sample = beginnings[:: max(1, len(beginnings) // count)][:count]
        encoded = self._runner.encode(sample)
        return [tuple(tokens[:length]) for tokens in encoded if len(tokens) >= length]


@as_ours()
def open_subject(subject: Subject, blobs: BlobStore) -> OpenedSide:
    """Open a model without reading its weights.

    Raises InvalidInput for a folder without a checkpoint, NotFound for lost blobs, Incompatible for
    a server that cannot be compared, EngineFailed for one that does not answer.
    """
    match subject:
        case Folder():
            return _open_folder(subject)
        case Stored():
            return _open_stored(subject, blobs)
        case Served():
            return _open_served(subject)


def _open_stored(subject: Stored, blobs: BlobStore) -> OpenedSide:
    manifest = manifests.load(blobs, subject.manifest_digest)
    generation = manifest.files.get(GENERATION_CONFIG)
    ends = _ends(manifest.config, get_bytes(blobs, generation) if generation else b"{}")
    files = {
        name: get_bytes(blobs, manifest.files[name])
        for name in VOCABULARY_FILES
        if name in manifest.files
    }
    architecture = manifest.architecture

    def load() -> Runner:
        network = Network.from_manifest(manifest, blobs, dtype=torch.float32)
        return network_runner.runner(network, stop_token_ids=ends)

    return OpenedSide(
        name=str(subject),
        key=json_digest([manifest.digest, sorted(ends)]),
        vocabulary=LocalVocabulary(files, config=manifest.config),
        vocab_size=architecture.vocab_size,
        max_tokens=architecture.max_position_embeddings,
        load=load,
        serve=partial(vllm_process.serving, manifest, blobs=blobs),
    )


def _open_folder(subject: Folder) -> OpenedSide:
    folder = subject.path
    check_folder(folder)
    if not (folder / TOKENIZER).is_file():
        raise InvalidInput(f"{folder} is no checkpoint: it has no {TOKENIZER}")
    weights = weight_files(folder)
    config = read_config(folder)
    generation = folder / GENERATION_CONFIG
    ends = _ends(config, generation.read_bytes() if generation.exists() else b"{}")
    files = {
        name: (folder / name).read_bytes() for name in VOCABULARY_FILES if (folder / name).is_file()
    }
    digests = {path.name: _digest(path) for path in (folder / CONFIG, *weights)}
    load = partial(_load_network if _is_ours(config) else _load_transformers, folder, ends)
    vocab_size, max_tokens = _sizes(folder, config)
    return OpenedSide(
        name=str(subject),
        key=json_digest([digests, sorted(ends)]),
        vocabulary=LocalVocabulary(files, config=config),
        vocab_size=vocab_size,
        max_tokens=max_tokens,
        load=load,
        serve=partial(vllm_process.serving_folder, folder),
    )


def _open_served(subject: Served) -> OpenedSide:
    runner = ServerRunner(subject.address, subject.model, os.environ.get(KEY_VARIABLE))
    card = runner.card()
    runner.check()
    return OpenedSide(
        name=str(subject),
        key=json_digest([subject.address, card]),
        vocabulary=ServedVocabulary(runner),
        vocab_size=None,
        max_tokens=card.get("max_model_len"),
        load=lambda: runner,
        serve=None,
    )


def _is_ours(config: dict[str, Any]) -> bool:
    """Tell whether our reference network runs this checkpoint: a Llama or a mix, float or int8."""
    try:
        Architecture.from_config(config)
        int8_modules(config)
    except InvalidCheckpoint:
        return False
    return True


def _sizes(folder: Path, config: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return the sizes of the vocabulary and of the longest text, in tokens."""
    if _is_ours(config):
        ours = Architecture.from_config(config)
        return ours.vocab_size, ours.max_position_embeddings
    from transformers import AutoConfig

    try:
        # transformers knows each family's names for these fields.
        theirs = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    except (ValueError, OSError) as error:
        raise InvalidInput(f"transformers does not know the model in {folder}: {error}") from error
    return getattr(theirs, "vocab_size", None), getattr(theirs, "max_position_embeddings", None)


def _load_network(folder: Path, ends: frozenset[int]) -> Runner:
    return network_runner.runner(network_of(folder), stop_token_ids=ends)


def network_of(folder: Path) -> Network:
    """Load the reference network of a Hugging Face folder: float32, frozen, in evaluation mode.

    Raises InvalidInput if the tensors do not match the config.
    """
    network = Network.of_config(read_config(folder))
    state: dict[str, Tensor] = {}
    for path in weight_files(folder):
        state |= {
            name: tensor if tensor.dtype == torch.int8 else tensor.float()
            for name, tensor in load_file(path).items()
        }
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise InvalidInput(f"the tensors of {folder} do not match its {CONFIG}: {error}") from error
    return network.requires_grad_(False).eval()


def _load_transformers(folder: Path, ends: frozenset[int]) -> Runner:
    from transformers import AutoModelForCausalLM

    try:
        # The model comes in evaluation mode.
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    except (ValueError, OSError, ImportError) as error:
        raise InvalidInput(f"transformers cannot open {folder}: {error}") from error
    return transformers_runner.of_model(model, stop_token_ids=ends)


def _ends(config: Mapping[str, Any], generation_config: bytes) -> frozenset[int]:
    """Return the end-of-text ids of both files, as servers take them."""
    ends: set[int] = set()
    for source in (config, json.loads(generation_config)):
        ids = source.get("eos_token_id")
        ends |= set(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return frozenset(ends)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
