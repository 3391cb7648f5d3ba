"""List the experiments of each family and their sizes, the cheap ones first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from assembler.demo.corpora.domains import EXPERT_DOMAINS
from assembler.recipes import presets
from registry.blobs.blobs import LocalBlobs
from tests.benchmarks.claims import (
    ablations,
    attention,
    downstream,
    extension,
    many,
    scaling,
    similarity,
    upcycling,
)
from tests.benchmarks.claims.families import small_llama, smollm2
from tests.benchmarks.claims.families.domains import ALL_DOMAINS, SEALED_DOMAINS
from tests.benchmarks.claims.families.family import Family
from tests.benchmarks.claims.mixes import Mix, Mixes
from tests.benchmarks.claims.page import averages_table

SEEDS = (0, 1, 2)
# Tokens of the compared finetunes: half of the default budget of six experts.
TOKENS = 24_576
DEFAULT_TOKENS = len(smollm2.DOMAINS) * presets.TOKENS_PER_EXPERT
METHODS = extension.ROUTERS + extension.PAPERS

Measure = Callable[[Mixes], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One `part` of the results, measured on the family `name`.

    `windows` and `questions` are the most that each domain gives.
    """

    part: str
    name: str
    family: Callable[[LocalBlobs], Family]
    measure: Measure
    windows: int
    questions: int


def all_of() -> Iterator[Experiment]:
    """Yield all experiments on real text."""
    yield from _on_small_llamas()
    yield from _on_smollm2()


def quick() -> Iterator[Experiment]:
    """Yield all parts on families of a few thousand parameters: they show signs, not sizes."""
    tiny = partial(small_llama.tiny_family, seed=0)
    twin = partial(small_llama.tiny_family, seed=0, parallel_block=True, trains="all")
    measures: dict[str, Measure] = {
        "upcycling": partial(upcycling.measure, budgets=(0, 16_384), paper_budgets=(0, 512)),
        "extension": partial(extension.measure, methods=METHODS, base_tokens=512, budgets=(0, 512)),
        "ablations": partial(ablations.measure, tokens=512, finetuned=ablations.BRIEF),
        "attention": partial(attention.measure, tokens=256),
        "scaling": partial(scaling.measure, counts=(2, 3)),
        "similarity": partial(similarity.measure, budgets=(0, 512)),
        "many": partial(many.measure, sealed=("expert-3",), lengths={64: 4}, switch=(64, 4)),
    }
    for part, measure in measures.items():
        yield Experiment(
            part=part,
            name="tiny",
            family=twin if part == "attention" else tiny,
            measure=measure,
            windows=8,
            questions=8,
        )
    yield Experiment(
        part="attention",
        name="tiny-all",
        family=partial(small_llama.tiny_family, seed=0, trains="all"),
        measure=attention.measure_averages,
        windows=8,
        questions=0,
    )


def _on_small_llamas() -> Iterator[Experiment]:
    size = {"windows": 32, "questions": 32}
    for seed in SEEDS:
        family = partial(small_llama.family, seed=seed)
        name = f"small-{seed}"
        yield Experiment(
            part="upcycling",
            name=name,
            family=family,
            measure=partial(
                upcycling.measure,
                budgets=(0, 8_192, 32_768, 131_072),
                paper_budgets=(0, 8_192, 32_768, 131_072),
                questioned=("nexus", "linear"),
            ),
            **size,
        )
        yield Experiment(
            part="ablations",
            name=name,
            family=family,
            measure=partial(ablations.measure, tokens=TOKENS),
            **size,
        )
        yield Experiment(
            part="extension",
            name=name,
            family=family,
            measure=partial(
                extension.measure,
                methods=METHODS,
                base_tokens=TOKENS,
                budgets=(0, 2_048, 8_192, 32_768),
            ),
            **size,
        )
        yield Experiment(
            part="scaling",
            name=name,
            family=partial(small_llama.family, seed=seed, domains=ALL_DOMAINS),
            measure=partial(scaling.measure, counts=(2, 4, 8, 16)),
            **size,
        )
    for seed in SEEDS:
        for parallel_block in (True, False):
            yield Experiment(
                part="attention",
                name=f"small-{seed}-{'parallel' if parallel_block else 'sequential'}",
                family=partial(
                    small_llama.family, seed=seed, parallel_block=parallel_block, trains="all"
                ),
                measure=partial(attention.measure, tokens=32_768),
                **size,
            )


def _on_smollm2() -> Iterator[Experiment]:
    measures: dict[str, Measure] = {
        "upcycling": partial(
            upcycling.measure,
            budgets=(0, 8_192, TOKENS, DEFAULT_TOKENS),
            paper_budgets=(0, 8_192),
            questioned=("nexus",),
        ),
        "similarity": partial(similarity.measure, budgets=(0, DEFAULT_TOKENS)),
        "ablations": partial(ablations.measure, tokens=TOKENS, finetuned=ablations.BRIEF),
        "extension": partial(
            extension.measure,
            methods=extension.ROUTERS,
            base_tokens=TOKENS,
            budgets=(0, 8_192, TOKENS),
        ),
        "scaling": partial(scaling.measure, counts=(2, 4, 6)),
        "downstream": _downstream,
    }
    for part, measure in measures.items():
        yield Experiment(
            part=part,
            name="smollm2-135m",
            family=smollm2.family,
            measure=measure,
            windows=16,
            questions=16,
        )

    for name, domains, training in (
        (averages_table.MILD, EXPERT_DOMAINS, smollm2.MILD),
        (averages_table.STRONG, smollm2.DOMAINS, smollm2.STRONG),
    ):
        yield Experiment(
            part="attention",
            name=name,
            family=partial(smollm2.family, domains=domains, training=training),
            measure=attention.measure_averages,
            windows=16,
            questions=0,
        )

    yield Experiment(
        part="many",
        name="smollm2-135m",
        family=partial(smollm2.family, domains=ALL_DOMAINS),
        measure=partial(
            many.measure,
            sealed=[domain.name for domain in SEALED_DOMAINS],
            lengths={512: 4, 2048: 1},
            switch=(256, 8),
        ),
        windows=16,
        questions=0,
    )


def _downstream(mixes: Mixes) -> dict[str, Any]:
    experts = mixes.domains
    networks = {
        "seed": None,
        "merge": Mix(experts=experts, preset="merge"),
        "nexus, nothing trained": Mix(experts=experts),
        "nexus": Mix(experts=experts, tokens=DEFAULT_TOKENS),
    }
    return downstream.measure(mixes, networks)
