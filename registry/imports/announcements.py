"""Sources of experts as they are announced, and their checks before any byte is sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from registry.checkpoints import admission
from registry.checkpoints.admission import Shard
from registry.checkpoints.manifests import Manifest, Origin
from registry.checkpoints.safetensors_header import parse_header
from registry.errors import InvalidCheckpoint, Problem
from registry.imports import gguf_checkpoints, lora_adapters
from registry.imports.gguf_header import GgufHeader
from registry.imports.lora_config import LoraConfig
from registry.imports.sources import Source
from registry.names import is_digest


class Announcement(Protocol):
    """What an expert is imported from."""

    def source(self) -> Source:
        """Return the source as the version keeps it."""

    def check(self, seed: Manifest) -> str:
        """Check it against the seed of its family, and describe it in a sentence.

        Raises InvalidCheckpoint if it contradicts itself, and Incompatible if it is none of the
        seed's.
        """


@dataclass(frozen=True, kw_only=True)
class AdapterAnnouncement:
    """A LoRA or DoRA adapter, as peft saves it.

    `config` is the content of `adapter_config.json`, `weights` the header of its tensors and
    `digest` the SHA-256 of that file. `files` maps names to digests, such as `tokenizer.json`; they
    replace the seed's.
    """

    config: dict[str, Any]
    weights: Shard
    digest: str
    files: Mapping[str, str]
    origin: Origin | None = None

    def source(self) -> Source:
        return Source(
            kind="adapter",
            digest=self.digest,
            size=self.weights.size,
            config=self.config,
            files=dict(self.files),
            origin=self.origin,
        )

    def check(self, seed: Manifest) -> str:
        config = LoraConfig.read(self.config)
        shard = self.weights
        spans = parse_header(
            shard.header, file_size=shard.size, file=shard.file, pointer="/weights/header"
        )
        _check_digests(self.digest, *admission.file_problems(self.files))
        return lora_adapters.plan(config, spans, seed).summary


@dataclass(frozen=True, kw_only=True)
class GgufAnnouncement:
    """A GGUF file: its header without lists, its size in bytes and its SHA-256."""

    header: GgufHeader
    size: int
    digest: str
    origin: Origin | None = None

    def source(self) -> Source:
        return Source(kind="gguf", digest=self.digest, size=self.size, origin=self.origin)

    def check(self, seed: Manifest) -> str:
        _check_digests(self.digest)
        return gguf_checkpoints.summary(gguf_checkpoints.plan(self.header, seed))


def _check_digests(digest: str, *others: Problem) -> None:
    problems = list(others)
    if not is_digest(digest):
        problems.append(
            Problem("/digest", f"{digest!r} is not a SHA-256 in lower-case hexadecimal")
        )
    if problems:
        raise InvalidCheckpoint("the source of the expert is refused", problems=tuple(problems))
