"""Make the demo's three experts and a mix of them, without a running service."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assembler.demo.corpora.domains import EXPERT_DOMAINS
from registry.blobs.blobs import LocalBlobs
from registry.catalog.documents import Document
from registry.checkpoints.manifests import Manifest
from registry.settings import settings
from tests import tiny
from tests.assembler import tiny_mixes as tiny_mixes
from tests.benchmarks.claims.families import smollm2
from tests.benchmarks.claims.families.windows import Windows
from tests.benchmarks.claims.mixes import Mix, Mixes

TINY_EXPERTS = (1, 2, 3)
# Half of these documents fill four windows of perplexity.
TINY_HELD_OUT = 20
# Public domains whose texts represent general text.
GENERAL = ("essays", "python")


@dataclass(frozen=True, kw_only=True)
class DemoMix:
    """A seed, its experts, and a mix of the default preset without training.

    Mappings are keyed by the domain of an expert; those of `public` by domains without an expert.
    """

    name: str
    seed: Manifest
    experts: Mapping[str, Manifest]
    mix: Manifest
    documents: Mapping[str, Sequence[Document]]
    public: Mapping[str, Sequence[Document]]
    blobs: LocalBlobs

    @property
    def digests(self) -> set[str]:
        """Digests of all tensors and files."""
        return set().union(*(m.digests() for m in (self.seed, self.mix, *self.experts.values())))


def smollm2_135m() -> DemoMix:
    """Return the mix of SmolLM2-135M, from the cache if it was made before.

    Raises Unavailable if its texts cannot be fetched.
    """
    blobs = LocalBlobs(settings().cache_path / "benchmarks" / "claims" / "blobs")
    family = smollm2.family(blobs, domains=EXPERT_DOMAINS)
    mixes = Mixes(family, blobs, windows=Windows.of(family, blobs, count=1))
    mix = Mix(experts=mixes.domains)
    return DemoMix(
        name=family.name,
        seed=family.seed,
        experts=family.experts,
        mix=mixes.manifest(mix),
        documents=family.documents,
        public=family.public,
        blobs=blobs,
    )


def of_random_llamas() -> DemoMix:
    """Return a mix of random Llamas with a few thousand parameters, to try a benchmark quickly."""
    blobs = LocalBlobs(settings().cache_path / "benchmarks" / "tiny-blobs")
    documents = [
        tiny.sample_documents(expert=i, num_held_out=TINY_HELD_OUT) for i in (0, *TINY_EXPERTS)
    ]
    return DemoMix(
        name="random-llama",
        seed=tiny.store_manifest(blobs),
        experts={f"expert-{i}": tiny.store_manifest(blobs, expert=i) for i in TINY_EXPERTS},
        mix=tiny_mixes.store_mix(blobs, experts=TINY_EXPERTS),
        documents={f"expert-{i}": documents[i] for i in TINY_EXPERTS},
        public=dict.fromkeys(GENERAL, documents[0]),
        blobs=blobs,
    )
