"""Make the demo's family, SmolLM2-135M, with the demo's experts and two that are added later."""

from collections.abc import Sequence

from assembler.demo import seed_folders
from assembler.demo.corpora.domains import (
    EXPERT_DOMAINS,
    FURTHER_DOMAINS,
    PROJECTION_DOMAINS,
    Domain,
    fetch,
)
from assembler.demo.corpora.public_texts import DOCUMENTS_PER_DOMAIN
from assembler.demo.smollm2 import SEED
from assembler.training import expert_training
from assembler.training.expert_training import ExpertTraining
from registry.blobs.blobs import LocalBlobs
from registry.catalog.documents import parse
from service.demo.demo_family import EXPERT_TRAINING
from tests.benchmarks.claims.families.family import Family, stored
from tests.benchmarks.harness import reports

DOMAINS = EXPERT_DOMAINS + FURTHER_DOMAINS

# Experts as the demo trains them: FFNs alone.
OF_DEMO = ExpertTraining.model_validate(EXPERT_TRAINING)
# All parameters: at the default rate for that, and at five times it.
MILD = ExpertTraining.model_validate({"train": "all", "tokens": 32_768, "batch_size": 4})
STRONG = ExpertTraining(train="all", learning_rate=1e-3, tokens=16_384, batch_size=4)


def family(
    blobs: LocalBlobs,
    *,
    domains: Sequence[Domain] = DOMAINS,
    training: ExpertTraining = OF_DEMO,
) -> Family:
    """Train an expert of each of `domains`, or load it from the cache.

    Raises Unavailable when texts or the seed cannot be downloaded.
    """
    texts = fetch(
        [*domains, *PROJECTION_DOMAINS], limit=DOCUMENTS_PER_DOMAIN, on_progress=reports.say
    )
    seed = seed_folders.unpacked(SEED)
    folders = {
        domain.name: expert_training.train_expert(
            seed,
            texts[domain.name],
            training=training,
            on_progress=lambda _: None,
        )
        for domain in domains
    }
    read = {name: parse([path.read_bytes()]) for name, path in texts.items()}
    return Family(
        name=SEED.name,
        seed=stored(seed, blobs),
        experts={name: stored(folder, blobs) for name, folder in folders.items()},
        documents={domain.name: read[domain.name] for domain in domains},
        public={domain.name: read[domain.name] for domain in PROJECTION_DOMAINS},
    )
