"""What a mix knows before anything of it is trained, with six experts of real text.

The experts are the demo's three and three more, trained as the demo trains them; the projection has
seen none of their domains. Every mix is made as the product makes it, in a store of its own, and
read on the held-out documents of all six domains. A network that was read once is not read again.
"""

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from assembler import making, presets, projection, upcycle
from assembler.cache import made_once
from assembler.data import Reader, evenly
from assembler.embedder import DOMAIN_TOKENS
from assembler.encoder import Encoder
from assembler.hidden_states import RouterInputs
from assembler.materials import Materials
from assembler.network import Network
from assembler.projection import PublicText
from assembler.recipe import Preset, ProjectionTraining, Recipe
from engine import tensors
from engine.gates import WINDOW_TOKENS
from registry import documents, manifests
from registry.blobs import LocalBlobs, put_bytes
from registry.manifests import Manifest, json_digest
from registry.settings import settings
from service.bars import Bar
from tests.benchmarks import encoder_ridge, reports, zero_token_experts
from tests.benchmarks.zero_token_experts import Experts

NAME = "zero-tokens"
PACKAGES = ("nexusmix", "torch", "numpy")
DEFAULT, ORACLE = "default", "the right expert, by label"
RIDGE = "vectors of a text encoder"
MIN_SHARE = 0.85
HELD_OUT_TOKENS = 2048
BATCH_WINDOWS = 8
RESULT_FILE = "reading.json"
TRAINING = ProjectionTraining()


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A mix that differs from the default; `reads` says whose router inputs stand for a domain,
    `learned` whether the projection has read the training documents of the experts too."""

    preset: Preset = "nexus"
    changes: Mapping[str, Any] = field(default_factory=dict)
    training: ProjectionTraining = TRAINING
    reads: Literal["expert", "seed"] = "expert"
    learned: bool = False


VARIANTS: Mapping[str, Variant] = {
    DEFAULT: Variant(),
    "half the logit spread": Variant(
        training=ProjectionTraining(logit_spread=TRAINING.logit_spread / 2)
    ),
    "twice the logit spread": Variant(
        training=ProjectionTraining(logit_spread=TRAINING.logit_spread * 2)
    ),
    "without the experts' own covariance": Variant(training=ProjectionTraining(own_weight=0)),
    "the seed's router inputs": Variant(reads="seed"),
    "not centred": Variant(changes={"center_embeddings": False}),
    "projection of experts' documents too": Variant(learned=True),
    "flexolmo": Variant(preset="flexolmo"),
    "linear": Variant(preset="linear"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = reports.options(NAME, "six experts, mixed without training anything")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    chosen = parser.parse_args(argv)
    kind = "tiny" if chosen.quick else "real"
    blobs = LocalBlobs(settings().cache_path / "benchmarks" / f"{NAME}-{kind}" / "blobs")
    given = zero_token_experts.tiny_ones(blobs) if chosen.quick else zero_token_experts.real(blobs)
    bench = _Bench(given, blobs)
    figures = bench.dense()
    for name in chosen.variants:
        figures[name] = bench.mix(name, VARIANTS[name])
    figures[RIDGE] = bench.encoder_mix()
    bars = [] if chosen.quick else [_bar(figures[DEFAULT]["share_of_gain"])]
    facts = {
        "domains": list(given.experts),
        "public_domains": list(given.public),
        "held_out_tokens_per_domain": HELD_OUT_TOKENS,
        "projection": TRAINING.model_dump(),
    }
    return reports.write(
        chosen.output, figures=facts | {"networks": figures}, bars=bars, packages=PACKAGES
    )


def _bar(share: float) -> Bar:
    return Bar("share of the right experts' gain, nothing trained", share, ">=", MIN_SHARE)


@dataclass(frozen=True)
class _Reading:
    """Of one network: log-perplexity on each domain, and of a mixture the share of routing
    decisions that chose each expert [domains, experts]."""

    log_perplexities: list[float]
    shares: list[list[float]] | None


class _Bench:
    def __init__(self, given: Experts, blobs: LocalBlobs) -> None:
        self._given, self._blobs = given, blobs
        reader = Reader.of(given.seed, blobs)
        self._windows = [
            evenly(
                reader.windows(own, split="held-out", length=WINDOW_TOKENS),
                count=HELD_OUT_TOKENS // WINDOW_TOKENS,
            )
            for own in given.documents
        ]
        encoder = Encoder()
        self._vectors = tuple(
            encoder.embed(documents.spread(own)).mean(0).tolist() for own in given.documents
        )
        self._states: dict[str, tuple[str, ...]] = {}
        self._public: dict[bool, PublicText] = {}
        self._seed = self._read(given.seed).log_perplexities
        self._oracle = [
            self._read(expert).log_perplexities[number]
            for number, expert in enumerate(given.experts.values())
        ]

    def dense(self) -> dict[str, Any]:
        """The seed, the right expert of each domain, and the mean of all."""
        merged = upcycle.merge([self._given.seed, *self._given.experts.values()], self._blobs)
        readings = {
            "seed": _Reading(self._seed, None),
            ORACLE: _Reading(self._oracle, None),
            "mean of seed and experts": self._read(merged),
        }
        return {name: self._told(name, reading) for name, reading in readings.items()}

    def mix(self, name: str, variant: Variant) -> dict[str, Any]:
        made = making.assemble(self._materials(variant), self._blobs)
        return self._told(name, self._read(made))

    def encoder_mix(self) -> dict[str, Any]:
        """With rows by an encoder's vectors, as far spread as those of the default."""
        given, blobs = self._given, self._blobs
        found = encoder_ridge.rows(
            given.seed,
            list(given.public.values()),
            torch.tensor(self._vectors),
            logit_spread=TRAINING.logit_spread,
            blobs=blobs,
        )
        made = making.assemble(self._materials(Variant(preset="linear")), blobs)
        rows = {
            f"model.layers.{layer}.mlp.gate.weight": tensors.write(blobs, rows_ND.bfloat16())
            for layer, rows_ND in enumerate(found)
        }
        return self._told(RIDGE, self._read(replace(made, tensors=made.tensors | rows)))

    def _told(self, name: str, reading: _Reading) -> dict[str, Any]:
        domains, values = list(self._given.experts), reading.log_perplexities
        gain = statistics.mean(self._seed) - statistics.mean(values)
        share = gain / (statistics.mean(self._seed) - statistics.mean(self._oracle))
        told: dict[str, Any] = {
            "perplexity": {
                domain: round(math.exp(value), 2)
                for domain, value in zip(domains, values, strict=True)
            },
            "mean_log_perplexity": round(statistics.mean(values), 4),
            "share_of_gain": round(share, 4),
        }
        if reading.shares is not None:
            told["routed_to_own_expert"] = {
                domain: round(reading.shares[number][number], 3)
                for number, domain in enumerate(domains)
            }
        reports.say(f"{name}: {100 * share:.1f} % of the gain")
        return told

    def _materials(self, variant: Variant) -> Materials:
        """What a worker would know of a request for this mix."""
        given, blobs = self._given, self._blobs
        assembly, wrong = presets.read_assembly(variant.preset, variant.changes)
        assert not wrong
        public = self._public_text(learned=variant.learned)
        family = projection.solve(public, training=variant.training, blobs=blobs)
        return Materials(
            recipe=Recipe(
                **assembly.model_dump(),
                family="family",
                experts=tuple(f"{name}@1" for name in given.experts),
                finetune=presets.finetune(variant.preset).model_copy(update={"tokens": 0}),
            ),
            seed_digest=manifests.store(blobs, given.seed),
            expert_digests=tuple(manifests.store(blobs, own) for own in given.experts.values()),
            documents_digests=tuple(
                put_bytes(blobs, documents.serialise(own)) for own in given.documents
            ),
            vectors=self._vectors,
            states_digests=self._states_of(variant.reads),
            projection_digest=manifests.store(blobs, family),
        )

    def _states_of(self, reads: str) -> tuple[str, ...]:
        if reads not in self._states:
            reports.say(f"router inputs, of each {reads}")
            digests = []
            for expert, own in zip(
                self._given.experts.values(), self._given.documents, strict=True
            ):
                reader = expert if reads == "expert" else self._given.seed
                moments = RouterInputs(reader, self._blobs).moments(own, num_tokens=DOMAIN_TOKENS)
                digests.append(tensors.write(self._blobs, moments.embedding()).digest)
            self._states[reads] = tuple(digests)
        return self._states[reads]

    def _public_text(self, *, learned: bool) -> PublicText:
        if learned not in self._public:
            texts = dict(self._given.public)
            if learned:
                texts |= dict(zip(self._given.experts, self._given.documents, strict=True))
            self._public[learned] = projection.read(
                self._given.seed,
                list(texts.values()),
                training=TRAINING,
                blobs=self._blobs,
                on_progress=lambda what, step, num_steps: reports.say(f"{what} {step}/{num_steps}"),
            )
        return self._public[learned]

    def _read(self, manifest: Manifest) -> _Reading:
        """Read the held-out windows of every domain, or find what was read of them before."""
        key = json_digest([manifest.digest, [own.tolist() for own in self._windows]])
        folder = settings().cache_path / "benchmarks" / NAME / key[:32]

        def make(target: Any) -> None:
            network = Network.from_manifest(manifest, self._blobs, dtype=torch.float32)
            read = [_read_domain(network, own) for own in self._windows]
            shares = None if read[0][1] is None else [own for _, own in read]
            content = {"log_perplexities": [value for value, _ in read], "shares": shares}
            (target / RESULT_FILE).write_text(json.dumps(content))

        return _Reading(**json.loads((made_once(folder, make) / RESULT_FILE).read_text()))


@torch.inference_mode()
def _read_domain(network: Network, windows: Tensor) -> tuple[float, list[float] | None]:
    """Log-perplexity, as gates measure it, and in the same pass where tokens went."""
    total, counts_N = 0.0, torch.zeros(network.architecture.num_experts)
    for tokens_BT in torch.split(windows, BATCH_WINDOWS):
        router_logits: list[Tensor] = []
        logits_BTV = network(tokens_BT, router_logits=router_logits)[:, :-1]
        total += F.cross_entropy(
            logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten(), reduction="sum"
        ).item()
        for logits_TN in router_logits if len(counts_N) else ():
            counts_N += logits_TN.argmax(-1).bincount(minlength=len(counts_N))
    shares = (counts_N / counts_N.sum()).tolist() if len(counts_N) else None
    return total / (windows.shape[0] * (windows.shape[1] - 1)), shares


if __name__ == "__main__":
    sys.exit(main())
