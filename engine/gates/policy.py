"""The policy of a mix: what every domain must reach, stage by stage, before it is published.

Each stage compares two models:

- `assembled`: the mix before its finetune, with its parents (the seed and the experts).
- `finetuned`: the mix after its finetune, with the mix before it.
- `compressed`: the mix after its compression, with the mix before it.
- `candidate`: the mix to be published, with its parents.
- `served`: the mix in the serving engine, with the reference network.
- `base`: the mix, with the version it was made from, in the domains that both have.
- `general`: the mix to be published, with its parents, on text of no expert's domain.
"""

from collections.abc import Mapping
from typing import Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator

from engine.gates.gate_limits import DivergenceLimits, check_reachable
from engine.gates.report import Data
from engine.vllm_build import serving_dtype

Stage = Literal["assembled", "finetuned", "compressed", "candidate", "served", "base", "general"]
STAGES: tuple[Stage, ...] = get_args(Stage)


# In nats, for an engine that computes in float32. It differs from the reference network by 1e-5,
# and by 1e-3 with routers in bfloat16 (SmolLM2-135M, three experts).
MAX_FLOAT32_DIFFERENCE = 1e-4
# Of the default 32 tokens, for an engine that computes in float32. An undamaged one has all 32.
# Another model, such as the mix before its finetune, has 0 to 4.
MIN_FLOAT32_FDT_25 = 16
# Of the texts, for an engine that computes in float32. An undamaged one has them all whole.
MIN_FLOAT32_WHOLE_SHARE = 0.75
# Of the undamaged mixes of `bench claims` that a preset makes, none is beyond 1.05.
MAX_GENERAL_RATIO = 1.25
# Limits on what no gate reads, so that no count of a plan overflows.
MAX_PROMPTS, MAX_TOKENS = 100_000, 2**24


def _max_served_difference() -> float | None:
    """Return the default limit in nats, or None where mixes are not served in float32."""
    return MAX_FLOAT32_DIFFERENCE if serving_dtype() == "float32" else None


def _min_served_fdt_25() -> float | None:
    """Return the default limit in tokens, or None where mixes are not served in float32."""
    return MIN_FLOAT32_FDT_25 if serving_dtype() == "float32" else None


def _min_served_whole_share() -> float | None:
    """Return the default limit, or None where mixes are not served in float32."""
    return MIN_FLOAT32_WHOLE_SHARE if serving_dtype() == "float32" else None


class ParentLimits(Data):
    """Limits on held-out perplexity relative to the mix's dense parents; None: reported only."""

    model_config = ConfigDict(allow_inf_nan=False)

    max_perplexity_ratio_to_seed: float | None = Field(
        default=None, gt=0, description="Held-out perplexity divided by the seed's."
    )
    max_perplexity_ratio_to_expert: float | None = Field(
        default=None,
        gt=0,
        description="Held-out perplexity divided by that of the domain's own expert.",
    )


class CandidateLimits(ParentLimits):
    __doc__ = ParentLimits.__doc__

    max_perplexity_ratio_to_seed: float | None = Field(
        default=1.02, gt=0, description="Held-out perplexity divided by the seed's."
    )


class ServedLimits(DivergenceLimits):
    """Limits on the served model, which reads greedy texts of the reference network."""

    min_equal_share: float | None = Field(
        default=0.99, ge=0, le=1, description="Share of tokens the served model predicts equally."
    )
    # The 75th percentile is as high as can be while a quarter of the texts stays whole.
    min_fdt_25: float | None = Field(
        default_factory=_min_served_fdt_25,
        ge=0,
        description="25th percentile of the served model's first divergent token. The default is"
        f" {MIN_FLOAT32_FDT_25} where mixes are served in float32, else no limit.",
    )
    min_fdt_75: float | None = Field(
        default=24,
        ge=0,
        description="75th percentile of the served model's first divergent token.",
    )
    # Excluded at its default, so that recipes from before this limit keep their digests.
    min_whole_share: float | None = Field(
        default_factory=_min_served_whole_share,
        ge=0,
        le=1,
        exclude_if=lambda share: share == _min_served_whole_share(),
        description="Share of texts that the served model predicts to their end. The default is"
        f" {MIN_FLOAT32_WHOLE_SHARE} where mixes are served in float32, else no limit.",
    )
    max_dppl_ratio: float | None = Field(
        default=1.01,
        ge=1,
        description="The served model's perplexity on the reference's text divided by the"
        " reference's own.",
    )
    max_logprob_difference: float | None = Field(
        default_factory=_max_served_difference,
        ge=0,
        description="Mean absolute difference of the tokens' log-probabilities, in nats. The"
        f" default is {MAX_FLOAT32_DIFFERENCE} where mixes are served in float32, else no limit.",
    )


class FinetunedLimits(DivergenceLimits):
    """Limits on the change by a finetune: the mix before it reads the texts of the mix after it."""

    max_perplexity_ratio: float | None = Field(
        default=None,
        gt=0,
        description="Held-out perplexity after the finetune divided by that before.",
    )


class CompressedLimits(DivergenceLimits):
    """Limits on the loss by compression: the mix before it reads the texts of the mix after it."""

    # A small language model with all layers in int8 has a perplexity 4 to 8 % higher.
    max_perplexity_ratio: float | None = Field(
        default=1.1,
        gt=0,
        description="Held-out perplexity after the compression divided by that before.",
    )


class BaseLimits(DivergenceLimits):
    """Limits on the loss relative to the previous version.

    That version reads the candidate's texts, in the domains that both have.
    """

    # Extensions without training raise the perplexity of old domains by up to 2.5 %, short
    # finetunes by up to 7 %. A domain whose expert is no longer selected falls back toward the
    # seed, by 40 % and more.
    max_perplexity_ratio: float | None = Field(
        default=1.1,
        gt=0,
        description="Held-out perplexity divided by that of the previous version.",
    )


class GeneralLimits(Data):
    """Limits on the loss on text of no expert's domain: held-out text of the family's projection.

    There is no such text where the family has no projection, or one without held-out documents.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    max_perplexity_ratio_to_seed: float | None = Field(
        default=None, gt=0, description="Perplexity divided by the seed's."
    )
    # Excluded at its default, so that recipes from before this limit keep their digests.
    max_perplexity_ratio_to_parents: float | None = Field(
        default=MAX_GENERAL_RATIO,
        gt=0,
        exclude_if=lambda ratio: ratio == MAX_GENERAL_RATIO,
        description="Perplexity divided by the largest of the seed and the experts.",
    )


class Policy(Data):
    """The amount of measured text, and the limits of each stage, which hold in every domain.

    A metric without a limit (null) is measured and reported all the same.
    """

    prompts_per_domain: int = Field(
        default=8, ge=1, le=MAX_PROMPTS, description="Held-out prefixes per domain."
    )
    prefix_tokens: int = Field(
        default=48, ge=1, le=MAX_TOKENS, description="Tokens of each prefix."
    )
    completion_tokens: int = Field(
        default=32,
        ge=1,
        le=MAX_TOKENS,
        description="Tokens the reference adds greedily to each prefix.",
    )
    tokens_per_domain: int = Field(
        default=2048,
        ge=2,
        le=10**12,
        description="Held-out tokens on which perplexity is measured.",
    )
    # Excluded at its default, so that recipes from before this field keep their digests.
    measure_baselines: bool = Field(
        default=False,
        exclude_if=lambda wanted: not wanted,
        description="Whether baselines are measured too: the mean of seed and experts, and each"
        " expert in the domains of the others. No limit holds for them.",
    )
    assembled: ParentLimits = Field(
        default=ParentLimits(), description="The mix before its finetune, against its parents."
    )
    finetuned: FinetunedLimits = Field(
        default=FinetunedLimits(), description="The mix after its finetune, against the mix before."
    )
    compressed: CompressedLimits = Field(
        default=CompressedLimits(),
        description="The mix after its compression, against the mix before.",
    )
    candidate: CandidateLimits = Field(
        default=CandidateLimits(), description="The mix to be published, against its parents."
    )
    served: ServedLimits = Field(
        default=ServedLimits(),
        description="The mix in the serving engine, against the reference network.",
    )
    base: BaseLimits = Field(
        default=BaseLimits(),
        description="The mix against the version it was made from, in the domains of both.",
    )

    # Excluded at its default, so that recipes from before this stage keep their digests.
    general: GeneralLimits = Field(
        default=GeneralLimits(),
        exclude_if=lambda limits: limits == GeneralLimits(),
        description="The mix to be published, against its parents, on text of no expert's domain.",
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        for stage, limits in self.divergence_limits.items():
            check_reachable(limits, completion_tokens=self.completion_tokens, at=f"{stage}.")
        return self

    @property
    def divergence_limits(self) -> Mapping[Stage, DivergenceLimits]:
        """Limits of the stages in which token predictions are compared."""
        return {
            "finetuned": self.finetuned,
            "compressed": self.compressed,
            "served": self.served,
            "base": self.base,
        }
