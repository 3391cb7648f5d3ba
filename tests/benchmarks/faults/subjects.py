"""Mixes in which faults are planted, and which are made again undamaged.

The first is that of the demo: SmolLM2 with three experts. The others are tiny networks that are
trained in seconds, of several bases, and with experts that moved their FFNs or everything.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from assembler.assembly.inputs import MixInputs
from assembler.demo.corpora.domains import EXPERT_DOMAINS
from assembler.evaluation import general_text
from assembler.evaluation.general_text import GeneralText
from assembler.evaluation.perplexities import GateCheckpoints
from assembler.jobs import pipeline
from assembler.recipes.recipe import Preset
from engine.gates.policy import CandidateLimits
from registry.blobs.blobs import LocalBlobs, put_bytes
from registry.catalog import documents
from registry.checkpoints.manifests import Manifest
from registry.settings import settings
from tests import tiny
from tests.assembler import base_networks
from tests.benchmarks.claims.families import small_llama, smollm2
from tests.benchmarks.claims.families.family import Family
from tests.benchmarks.claims.families.small_llama import Trains
from tests.benchmarks.claims.families.windows import Windows
from tests.benchmarks.claims.mixes import Mix, Mixes

# Of the mix whose finetune is damaged.
FINETUNE_TOKENS = 8192
TINY_FINETUNE_TOKENS = 1024
# Of experts that train everything. At five times this rate they move so far apart that averages
# are of no use: such a mix is nearly twice as bad as its worst parent on general text.
MILD_RATE = 2e-3
# Half of these documents fill all windows of a gate.
TINY_HELD_OUT = 20
# Bases of tiny families; the first is a plain Llama.
TINY_BASES = ("llama", "qwen2", "qwen3", "gemma3")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A mix, by the inputs that a job would have, and the text that its gate reads."""

    name: str
    inputs: MixInputs
    general: GeneralText | None
    blobs: LocalBlobs
    assembled: Manifest
    finetuned: Manifest | None = None

    @cached_property
    def checkpoints(self) -> GateCheckpoints:
        """What the gate of the undamaged mix compares."""
        parts = self.inputs.parts(self.blobs)
        return GateCheckpoints(
            seed=parts.seed,
            experts=dict(zip(self.inputs.recipe.domains, parts.experts, strict=True)),
            assembled=self.assembled,
            finetuned=self.finetuned,
            base=None if parts.base is None else parts.base.mix,
            base_domains=frozenset(ref.partition("@")[0] for ref, _ in self.inputs.base_experts),
        )


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Makes the mixes of one family."""

    family: Family
    blobs: LocalBlobs

    @cached_property
    def _mixes(self) -> Mixes:
        windows = Windows.of(self.family, self.blobs, count=1)
        return Mixes(self.family, self.blobs, windows=windows)

    @cached_property
    def _general(self) -> GeneralText | None:
        texts = [
            replace(document, domain=name)
            for name, domain in self.family.public.items()
            for document in domain
        ]
        return general_text.read(put_bytes(self.blobs, documents.serialize(texts)), self.blobs)

    def make(
        self,
        preset: Preset = "nexus",
        *,
        experts: Sequence[str] = (),
        tokens: int = 0,
        **changes: Any,
    ) -> Subject:
        """Return a mix of experts of the family, by default of all."""
        chosen = tuple(experts) or self._mixes.domains
        mix = Mix(experts=chosen, preset=preset, tokens=tokens, changes=changes)
        return self._subject(mix, f"{self.family.name}, {preset}{_words(changes, tokens)}")

    def extend(self, preset: Preset = "nexus") -> Subject:
        """Return a mix that extends one of all experts but the last."""
        base = Mix(experts=self._mixes.domains[:-1], preset=preset)
        mix = Mix(experts=self._mixes.domains, preset=preset, base=base)
        return self._subject(mix, f"{self.family.name}, {preset}, extended")

    def _subject(self, mix: Mix, name: str) -> Subject:
        inputs = self._mixes.inputs(mix)
        return Subject(
            name=name,
            inputs=inputs,
            assembled=pipeline.assemble(inputs, self.blobs),
            general=self._general,
            blobs=self.blobs,
            finetuned=self._mixes.manifest(mix) if mix.tokens else None,
        )


def _words(changes: dict[str, Any], tokens: int) -> str:
    words = [f"{name} {value}" for name, value in changes.items()]
    words += ["finetuned"] if tokens else []
    return "".join(f", {word}" for word in words)


def of_demo() -> Maker:
    """Return the maker of the demo's family. Raises Unavailable if texts cannot be fetched."""
    blobs = LocalBlobs(settings().cache_path / "benchmarks" / "claims" / "blobs")
    return Maker(family=smollm2.family(blobs, domains=EXPERT_DOMAINS), blobs=blobs)


def of_tiny(base: str = "llama", *, trains: Trains = "ffn") -> Maker:
    """Return the maker of a tiny family of one base."""
    blobs = LocalBlobs(settings().cache_path / "benchmarks" / "tiny-blobs")
    plan = small_llama.TINY
    if base != "llama":
        architecture = replace(base_networks.dense(base), vocab_size=plan.architecture.vocab_size)
        plan = replace(plan, name=f"tiny-{base}", architecture=architecture)
    if trains == "all":
        rate = {"learning_rate": MILD_RATE}
        mild = plan.expert_training.model_copy(update=rate)
        plan = replace(plan, name=f"{plan.name}-mild", expert_training=mild)
    family = small_llama.trained(
        plan,
        blobs,
        documents=_texts(range(1, 4)),
        public=_texts(range(5, 8)),
        seed=0,
        parallel_block=False,
        trains=trains,
    )
    return Maker(family=family, blobs=blobs)


def rebuilt() -> Iterator[Subject]:
    """Yield the undamaged tiny mixes: families, presets, an extension and a finetune of each."""
    for base in TINY_BASES:
        ffns, full = (of_tiny(base, trains=trains) for trains in ("ffn", "all"))
        for preset in PRESETS_OF_FFNS:
            yield _by_damage_alone(ffns.make(preset))
        yield ffns.extend()
        yield ffns.make(tokens=TINY_FINETUNE_TOKENS)
        # Attention becomes experts in plain Llamas only.
        others: Sequence[Preset] = ("nexus", "bam" if base == "llama" else "linear")
        for preset in others:
            yield _by_damage_alone(full.make(preset))
        yield full.make(averaging="mean")
        yield full.extend()


def _by_damage_alone(subject: Subject) -> Subject:
    """Take the limit to the seed from mixes whose routers are random and untrained.

    They may be worse than their seed without any damage, and are refused for it rightly.
    """
    recipe = subject.inputs.recipe
    if recipe.router_init != "random" or recipe.kind == "dense_merge":
        return subject
    lenient = CandidateLimits(max_perplexity_ratio_to_seed=None)
    gates = recipe.gates.model_copy(update={"candidate": lenient})
    inputs = replace(subject.inputs, recipe=recipe.model_copy(update={"gates": gates}))
    return replace(subject, name=f"{subject.name}, whatever its quality", inputs=inputs)


PRESETS_OF_FFNS: Sequence[Preset] = ("nexus", "linear", "btx", "merge")


def finetune_tokens(is_quick: bool) -> int:
    """Return the tokens of the finetune that is damaged."""
    return TINY_FINETUNE_TOKENS if is_quick else FINETUNE_TOKENS


def _texts(numbers: Sequence[int]) -> dict[str, list[documents.Document]]:
    return {
        f"domain-{number}": tiny.sample_documents(expert=number, num_held_out=TINY_HELD_OUT)
        for number in numbers
    }
