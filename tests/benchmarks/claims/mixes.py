"""Mixes of a family as the product makes them, each made once and read once.

Whatever was made or read is found again by what it depends on: a run that ended early goes on where
it stopped, and experiments that ask for the same mix share it.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from assembler.assembly.inputs import MixInputs
from assembler.content_cache import made_once
from assembler.jobs import pipeline
from assembler.network.model import Network
from assembler.recipes import presets
from assembler.recipes.recipe import Preset, ProjectionTraining, Recipe
from assembler.routing import projection
from assembler.routing.embedder import DOMAIN_TOKENS
from assembler.routing.router_inputs import RouterInputs
from assembler.routing.text_encoder import Encoder
from assembler.training.batches import TokenReader, sample_windows
from assembler.training.distributed import World
from assembler.training.domain_loss_choice import choose_domain_loss
from assembler.training.finetune import training_batches
from assembler.training.optimizer import DTYPES
from engine.gates.mix_gate import WINDOW_TOKENS
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import documents
from registry.catalog.documents import Document
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest, json_digest
from registry.settings import settings
from tests.benchmarks.claims.families.family import Family
from tests.benchmarks.claims.reading import Reading, answers, questions_of, read
from tests.benchmarks.harness import reports

# Raise it when the product assembles other mixes of the same inputs, or readings read otherwise;
# and these when only its finetune comes to other weights, or only that of who joins a mix.
VERSION, FINETUNE_VERSION, EXTENSION_VERSION = 1, 5, 1
# Held-out text of domains that no expert is of.
GENERAL = "general"


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What is asked for; what a preset does not say is in `changes` and `finetune`.

    `reads` says whose router inputs stand for a domain, taken from how many of its tokens;
    `learned` whether the projection has read the training documents of the experts too.
    """

    experts: tuple[str, ...]
    preset: Preset = "nexus"
    changes: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 0
    finetune: Mapping[str, Any] = field(default_factory=dict)
    base: "Mix | None" = None
    training: ProjectionTraining = field(default_factory=ProjectionTraining)
    reads: Literal["expert", "seed"] = "expert"
    domain_tokens: int = DOMAIN_TOKENS
    learned: bool = False


@dataclass(frozen=True, kw_only=True)
class Made:
    """The manifest of a mix, the seconds of all cores that its assembly and finetune took, and the
    bytes of those of its tensors that neither the seed nor an expert has."""

    digest: str
    cpu_seconds: float
    new_bytes: int


class NotMeasured(Exception):
    """What is asked for was not measured yet, and is not to be measured now."""


class Mixes:
    """Of one family. `windows` of held-out text are read of each domain, and `questions` asked,
    at most. With `found_only` nothing is made or read that is not there; see `NotMeasured`."""

    def __init__(
        self,
        family: Family,
        blobs: LocalBlobs,
        *,
        windows: int,
        questions: int,
        found_only: bool = False,
    ) -> None:
        self.family, self.blobs, self._found_only = family, blobs, found_only
        self._expert_digests = {n: manifests.store(blobs, m) for n, m in family.experts.items()}
        self._documents_digests = {
            name: put_bytes(blobs, documents.serialize(own))
            for name, own in family.documents.items()
        }
        self._public: dict[tuple[bool, int], projection.PublicStatistics] = {}
        reader = TokenReader.of(family.seed, blobs)
        texts = {name: [own] for name, own in family.documents.items()}
        texts[GENERAL] = list(family.public.values())
        found = {name: _held_out(reader, own, windows) for name, own in texts.items()}
        # As many of each, so that a mean over domains can be taken window by window.
        windows = min(map(len, found.values()))
        self._windows = {name: sample_windows(own, count=windows) for name, own in found.items()}
        self._questions = {
            name: questions_of(sample_windows(own, count=questions)[:questions])
            for name, own in self._windows.items()
        }

    @property
    def has_questions(self) -> bool:
        return any(map(len, self._questions.values()))

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.family.experts)

    def read(self, network: Mix | Manifest) -> Reading:
        """Of every domain; what was read before is found."""
        manifest = self.manifest(network)

        def make() -> dict[str, Any]:
            return asdict(read(self.network(manifest), self._windows))

        return Reading(**self.once("readings", [manifest.digest, _listed(self._windows)], make))

    def answers(self, network: Mix | Manifest, domain: str) -> list[bool]:
        """Of one domain, whether each question was answered well."""
        manifest, own = self.manifest(network), self._questions[domain]
        key = [manifest.digest, own.tolist()]
        found: list[bool] = self.once("answers", key, lambda: answers(self.network(manifest), own))
        return found

    def manifest(self, network: Mix | Manifest) -> Manifest:
        if isinstance(network, Manifest):
            return network
        return manifests.load(self.blobs, self.make(network).digest)

    def network(self, manifest: Manifest) -> Network:
        return Network.from_manifest(manifest, self.blobs, dtype=torch.float32)

    def make(self, mix: Mix) -> Made:
        inputs = self.inputs(mix)
        if mix.tokens:
            inputs = _with_loss(inputs, self.domain_loss_q(mix))
        key = self._key(inputs)
        if mix.tokens:
            key.append(FINETUNE_VERSION)
            if mix.base is not None:
                key.append(EXTENSION_VERSION)
        return Made(**self.once("mixes", key, lambda: self._made(inputs, json_digest(key))))

    def domain_loss_q(self, mix: Mix) -> float:
        """By which its finetune tells routers their domains, whoever decides it; one that does not
        tell them is known by 1."""
        inputs = self.inputs(mix)
        recipe = inputs.recipe.finetune
        if recipe.domain_loss_q is not None:
            return recipe.domain_loss_q
        if not recipe.domain_weight:
            return 1.0
        untrained = replace(mix, tokens=0)
        q: float = self.once(
            "losses",
            self._key(inputs),
            lambda: self._settled(self.manifest(untrained), inputs),
        )
        return q

    def _settled(self, manifest: Manifest, inputs: MixInputs) -> float | None:
        recipe = inputs.recipe.finetune
        batches = training_batches(
            manifest,
            inputs.parts(self.blobs).documents,
            recipe=recipe,
            new_experts=inputs.new_experts,
            blobs=self.blobs,
        )
        network = Network.from_manifest(manifest, self.blobs, dtype=DTYPES[recipe.dtype])
        world = World(rank=0, size=1, device=network.device)
        return choose_domain_loss(recipe, batches, network=network, world=world).domain_loss_q

    def _key(self, inputs: MixInputs) -> list[Any]:
        return [asdict(inputs) | {"recipe": self._told(inputs.recipe)}]

    def _told(self, recipe: Recipe) -> dict[str, Any]:
        """All that a mix depends on: not how it would be finetuned, were it."""
        told = recipe.model_dump(mode="json")
        return told if recipe.finetune.tokens else told | {"finetune": None}

    def _made(self, inputs: MixInputs, name: str) -> dict[str, Any]:
        recipe = inputs.recipe
        base = "" if recipe.base is None else f", from {recipe.base}"
        reports.say(
            f"{self.family.name}: {recipe.preset} of {len(recipe.experts)}{base},"
            f" {recipe.finetune.tokens} tokens"
        )
        checkpoint_path = self._folder("checkpoints", name)
        started = time.process_time()
        mix = pipeline.finetune(
            pipeline.assemble(inputs, self.blobs),
            inputs,
            blobs=self.blobs,
            checkpoint_path=checkpoint_path,
            on_progress=lambda _: None,
        )
        cpu_seconds = time.process_time() - started
        shutil.rmtree(checkpoint_path, ignore_errors=True)
        known = {
            entry.digest
            for checkpoint in (self.family.seed, *self.family.experts.values())
            for entry in checkpoint.tensors.values()
        }
        new = {e.digest: e.num_bytes for e in mix.tensors.values() if e.digest not in known}
        digest = manifests.store(self.blobs, mix)
        made = Made(digest=digest, cpu_seconds=round(cpu_seconds, 1), new_bytes=sum(new.values()))
        return asdict(made)

    def inputs(self, mix: Mix) -> MixInputs:
        """What a worker would know of a request for this mix."""
        assembly, wrong = presets.read_assembly(mix.preset, mix.changes)
        finetune, more = presets.read_finetune(
            mix.preset, {**mix.finetune, "tokens": mix.tokens}, num_experts=len(mix.experts)
        )
        assert not wrong + more, wrong + more
        recipe = Recipe(
            **assembly.model_dump(),
            family="family",
            experts=tuple(map(_ref, mix.experts)),
            base=None if mix.base is None else f"base-{mix.base.tokens}@1",
            finetune=finetune,
        )
        return MixInputs(
            recipe=recipe,
            seed_digest=manifests.store(self.blobs, self.family.seed),
            expert_digests=tuple(self._expert_digests[name] for name in mix.experts),
            documents_digests=tuple(self._documents_digests[name] for name in mix.experts),
            vectors=tuple(self.vector(name) for name in mix.experts),
            states_digests=tuple(self._states(name, mix) for name in mix.experts)
            if recipe.embeds_with_states
            else (),
            projection_digest=self._projection(mix) if recipe.needs_projection else None,
            base_digest=None if mix.base is None else self.make(mix.base).digest,
            base_experts=()
            if mix.base is None
            else tuple((_ref(name), self._expert_digests[name]) for name in mix.base.experts),
        )

    def vector(self, name: str) -> list[float]:
        """The mean vector of a domain's documents, as the encoder has it."""

        def embed() -> list[float]:
            texts = documents.sample_evenly(self.family.documents[name])
            return [round(x, 6) for x in self._encoder.embed(texts).mean(0).tolist()]

        vector: list[float] = self.once("vectors", self._documents_digests[name], embed)
        return vector

    def _states(self, name: str, mix: Mix) -> str:
        reader = self.family.experts[name] if mix.reads == "expert" else self.family.seed
        own = self.family.documents[name]

        def read_inputs() -> str:
            inputs = RouterInputs(reader, self.blobs)
            moments = inputs.moments(own, num_tokens=mix.domain_tokens)
            return tensors.write(self.blobs, moments.embedding()).digest

        key = [reader.digest, self._documents_digests[name], mix.domain_tokens]
        digest: str = self.once("states", key, read_inputs)
        return digest

    def _projection(self, mix: Mix) -> str:
        def learn() -> str:
            public = self._public_text(mix)
            learned = projection.solve(public, training=mix.training, blobs=self.blobs)
            return manifests.store(self.blobs, learned)

        own = self._public_documents(learned=mix.learned).values()
        texts = [hashlib.sha256(documents.serialize(text)).hexdigest() for text in own]
        key = [self.family.seed.digest, texts, mix.training.model_dump(mode="json")]
        digest: str = self.once("projections", key, learn)
        return digest

    def _public_text(self, mix: Mix) -> projection.PublicStatistics:
        key = (mix.learned, mix.training.tokens_per_domain)
        if key not in self._public:
            self._public[key] = projection.measure_public_text(
                self.family.seed,
                list(self._public_documents(learned=mix.learned).values()),
                training=mix.training,
                blobs=self.blobs,
                on_progress=lambda what, step, num_steps: reports.say(
                    f"{self.family.name}: {what} {step}/{num_steps}"
                ),
            )
        return self._public[key]

    def _public_documents(self, *, learned: bool) -> Mapping[str, Sequence[Document]]:
        return {**self.family.public, **(self.family.documents if learned else {})}

    def once(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        """`make()`, a JSON value, or what it was when it was made before. Raises NotMeasured."""

        def write(folder: Path) -> None:
            (folder / "result.json").write_text(json.dumps(make()))

        folder = self._folder(kind, json_digest([VERSION, key]))
        if self._found_only and not folder.exists():
            raise NotMeasured(f"{self.family.name}: {kind}")
        return json.loads((made_once(folder, write) / "result.json").read_text())

    def _folder(self, kind: str, name: str) -> Path:
        return settings().cache_path / "benchmarks" / "claims" / kind / name[:2] / name[2:]

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder()


def _held_out(reader: TokenReader, texts: Sequence[Sequence[Document]], count: int) -> Tensor:
    """Windows [n, T] of the held-out documents of several texts, about the same number of each."""
    parts = [reader.windows(own, split="held-out", length=WINDOW_TOKENS) for own in texts]
    share = math.ceil(count / len(parts))
    return sample_windows(
        torch.cat([sample_windows(part, count=share) for part in parts]), count=count
    )


def _with_loss(inputs: MixInputs, q: float) -> MixInputs:
    finetune = inputs.recipe.finetune.model_copy(update={"domain_loss_q": q})
    recipe = inputs.recipe.model_copy(update={"finetune": finetune})
    return replace(inputs, recipe=recipe)


def _listed(tokens: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: own.tolist() for name, own in tokens.items()}


def _ref(name: str) -> str:
    return f"{name}@1"
