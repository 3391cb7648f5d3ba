"""Make the mixes of a family as the product does, and read each of them once.

A cache keeps everything that was made or read, by a digest of its inputs. So an interrupted run
continues, and experiments share their mixes.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

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
from engine.vllm_plugin import tensors
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import documents
from registry.catalog.documents import Document
from registry.checkpoints import manifests
from registry.checkpoints.manifests import Manifest, json_digest
from registry.settings import settings
from tests.benchmarks.claims import versions
from tests.benchmarks.claims.families import moments
from tests.benchmarks.claims.families.family import Family
from tests.benchmarks.claims.families.windows import Windows
from tests.benchmarks.claims.reading import Reading, answers, questions_of, read
from tests.benchmarks.harness import reports


@dataclass(frozen=True, kw_only=True)
class Mix:
    """A request for a mix; `changes` and `finetune` replace fields of the preset.

    `reads` names the network whose router inputs represent a domain, `domain_tokens` the number of
    tokens that it reads. With `learned` the projection also learns from the experts' documents.
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
    """The manifest of a mix and its costs.

    `cpu_seconds` are of assembly and finetune on all cores, `new_bytes` of the tensors that neither
    the seed nor an expert has.
    """

    digest: str
    cpu_seconds: float
    new_bytes: int


class NotMeasured(Exception):
    """Raised when a figure is not in the cache and `found_only` forbids measuring it."""


class Mixes:
    """The mixes of one family, read in `windows`, with at most `questions` of each domain.

    With `found_only` only the cache is read, and a missing figure raises NotMeasured.
    """

    def __init__(
        self,
        family: Family,
        blobs: LocalBlobs,
        *,
        windows: Windows,
        questions: int = 0,
        found_only: bool = False,
    ) -> None:
        self.family, self.blobs, self._found_only = family, blobs, found_only
        self._expert_digests = {n: manifests.store(blobs, m) for n, m in family.experts.items()}
        self._documents_digests = {
            name: put_bytes(blobs, documents.serialize(texts))
            for name, texts in family.documents.items()
        }
        self._public: dict[tuple[bool, int], projection.PublicStatistics] = {}
        self._windows = windows
        self._questions = {
            name: questions_of(sample_windows(texts_nT, count=questions)[:questions])
            for name, texts_nT in windows.tokens.items()
        }

    @property
    def has_questions(self) -> bool:
        return any(map(len, self._questions.values()))

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.family.experts)

    def read_in(self, windows: Windows) -> "Mixes":
        """Return the same mixes, read in other windows."""
        return Mixes(self.family, self.blobs, windows=windows, found_only=self._found_only)

    def texts(self, name: str) -> list[str]:
        """Return the windows of a domain, or of general text, as text."""
        reader = TokenReader.of(self.family.seed, self.blobs)
        return [reader.decode(tokens) for tokens in self._windows.tokens[name].tolist()]

    def read(self, network: Mix | Manifest) -> Reading:
        """Return the reading of every domain, from the cache where it has it."""
        manifest = self.manifest(network)

        def make() -> dict[str, Any]:
            return asdict(read(self.network(manifest), self._windows))

        key = [manifest.digest, *self._windows.key]
        return Reading(**self.once("readings", key, make))

    def answers(self, network: Mix | Manifest, domain: str) -> list[bool]:
        """Return for each question of a domain whether the answer is right."""
        manifest, questions = self.manifest(network), self._questions[domain]
        key = [manifest.digest, questions.tolist()]
        right: list[bool] = self.once(
            "answers", key, lambda: answers(self.network(manifest), questions)
        )
        return right

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
        key = [versions.key_of(inputs), *versions.of_mix(inputs)]
        return Made(**self.once("mixes", key, lambda: self._made(inputs, json_digest(key))))

    def domain_loss_q(self, mix: Mix) -> float:
        """Return the q of the domain loss in the finetune of a mix, given or chosen.

        Return 1 where the finetune has no domain loss.
        """
        inputs = self.inputs(mix)
        recipe = inputs.recipe.finetune
        if recipe.domain_loss_q is not None:
            return recipe.domain_loss_q
        if not recipe.domain_weight:
            return 1.0
        untrained = replace(mix, tokens=0)
        q: float = self.once(
            "losses",
            [versions.key_of(inputs)],
            lambda: self._chosen_q(self.manifest(untrained), inputs),
        )
        return q

    def _chosen_q(self, manifest: Manifest, inputs: MixInputs) -> float | None:
        recipe = inputs.recipe.finetune
        batches = training_batches(
            manifest,
            inputs.parts(self.blobs).documents,
            recipe=recipe,
            new_experts=inputs.new_experts,
            base_digest=inputs.base_digest,
            blobs=self.blobs,
        )
        network = Network.from_manifest(manifest, self.blobs, dtype=DTYPES[recipe.dtype])
        world = World(rank=0, size=1, device=network.device)
        return choose_domain_loss(recipe, batches, network=network, world=world).domain_loss_q

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
        """Return the inputs that a worker gets for this mix."""
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
        in_base = () if mix.base is None else mix.base.experts
        uses_moments = recipe.averages_by_regression and moments.are_needed(
            self.family, {*mix.experts, *in_base}
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
            moments_digests=tuple(map(self._moments, mix.experts)) if uses_moments else (),
            base_digest=None if mix.base is None else self.make(mix.base).digest,
            base_experts=tuple((_ref(name), self._expert_digests[name]) for name in in_base),
            base_moments_digests=tuple(map(self._moments, in_base)) if uses_moments else (),
        )

    def _moments(self, name: str) -> str:
        """Return the digest of the moments of what an expert reads in its documents."""
        expert, texts = self.family.experts[name], self.family.documents[name]

        key = [expert.digest, self._documents_digests[name], DOMAIN_TOKENS]
        digest: str = self.once("moments", key, lambda: moments.read(expert, texts, self.blobs))
        return digest

    def vector(self, name: str) -> list[float]:
        """Return the mean vector of a domain's documents by the text encoder."""

        def embed() -> list[float]:
            texts = documents.sample_evenly(self.family.documents[name])
            return [round(x, 6) for x in self._encoder.embed(texts).mean(0).tolist()]

        vector: list[float] = self.once("vectors", self._documents_digests[name], embed)
        return vector

    def _states(self, name: str, mix: Mix) -> str:
        reader = self.family.experts[name] if mix.reads == "expert" else self.family.seed
        texts = self.family.documents[name]

        def read_inputs() -> str:
            inputs = RouterInputs(reader, self.blobs)
            embedding = inputs.moments(texts, num_tokens=mix.domain_tokens).embedding()
            return tensors.write(self.blobs, embedding).digest

        key = [reader.digest, self._documents_digests[name], mix.domain_tokens]
        digest: str = self.once("states", key, read_inputs)
        return digest

    def _projection(self, mix: Mix) -> str:
        def learn() -> str:
            public = self._public_text(mix)
            learned = projection.solve(public, training=mix.training, blobs=self.blobs)
            return manifests.store(self.blobs, learned)

        domains = self._public_documents(learned=mix.learned).values()
        digests = [hashlib.sha256(documents.serialize(texts)).hexdigest() for texts in domains]
        key = [self.family.seed.digest, digests, mix.training.model_dump(mode="json")]
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
        """Return the JSON value of `make()`, from the cache where it has it. Raises NotMeasured."""

        def write(folder: Path) -> None:
            (folder / "result.json").write_text(json.dumps(make()))

        folder = self._folder(kind, json_digest([versions.VERSION, key]))
        if self._found_only and not folder.exists():
            raise NotMeasured(f"{self.family.name}: {kind}")
        return json.loads((made_once(folder, write) / "result.json").read_text())

    def _folder(self, kind: str, name: str) -> Path:
        return settings().cache_path / "benchmarks" / "claims" / kind / name[:2] / name[2:]

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder()


def _with_loss(inputs: MixInputs, q: float) -> MixInputs:
    finetune = inputs.recipe.finetune.model_copy(update={"domain_loss_q": q})
    recipe = inputs.recipe.model_copy(update={"finetune": finetune})
    return replace(inputs, recipe=recipe)


def _ref(name: str) -> str:
    return f"{name}@1"
