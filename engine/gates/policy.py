"""What a mix must reach to be published, as data: stage by stage, in every domain.

The stages are comparisons. `assembled`: the mix before its finetune with its parents, the seed and
the experts. `finetuned`: the mix after with the mix before. `compressed`: the mix after its
compression with the mix before that. `candidate`: what is to be published with its parents.
`served`: what the engine makes of it with the reference network. `base`: with the version that it
was made from, in the domains that both have.
"""

from collections.abc import Mapping
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from engine.gates.gate_limits import Likeness, check_reachable
from engine.gates.report import Data
from engine.vllm_build import serving_dtype

Stage = Literal["assembled", "finetuned", "compressed", "candidate", "served", "base"]
STAGES: tuple[Stage, ...] = get_args(Stage)


# In nats, of an engine that computes in float32: it strays 1e-5 from the reference network, with
# routers in bfloat16 1e-3 (SmolLM2-135M, three experts).
MAX_FLOAT32_DIFFERENCE = 1e-4


def _max_served_difference() -> float | None:
    return MAX_FLOAT32_DIFFERENCE if serving_dtype() == "float32" else None


class ParentLimits(Data):
    """Of held-out perplexity, over that of the dense models a mix is made of; None: told only."""

    max_perplexity_ratio_to_seed: float | None = Field(
        default=None, gt=0, description="Held-out perplexity over the seed's."
    )
    max_perplexity_ratio_to_expert: float | None = Field(
        default=None, gt=0, description="Held-out perplexity over that of the domain's own expert."
    )


class CandidateLimits(ParentLimits):
    __doc__ = ParentLimits.__doc__

    max_perplexity_ratio_to_seed: float | None = Field(
        default=1.02, gt=0, description="Held-out perplexity over the seed's."
    )


class ServedLimits(Likeness):
    """Of the served model, which reads the reference network's greedy texts."""

    min_equal_share: float | None = Field(
        default=0.99, ge=0, le=1, description="Share of tokens the served model predicts alike."
    )
    min_fdt_75: float | None = Field(
        default=24,
        ge=0,
        description="75th percentile of the served model's first divergent token.",
    )
    max_dppl_ratio: float | None = Field(
        default=1.01,
        ge=1,
        description="Served perplexity on the reference's text, over the reference's own.",
    )
    max_logprob_difference: float | None = Field(
        default_factory=_max_served_difference,
        ge=0,
        description="By how much, in nats, served log-probabilities of tokens differ on average;"
        f" {MAX_FLOAT32_DIFFERENCE} if not given where mixes are served in float32, else no limit.",
    )


class FinetunedLimits(Likeness):
    """Of what a finetune may move: the mix before it reads the texts of the mix after it."""

    max_perplexity_ratio: float | None = Field(
        default=None, gt=0, description="Held-out perplexity after the finetune over that before."
    )


class CompressedLimits(Likeness):
    """Of what a compression may cost: the mix before it reads the texts of the mix after it."""

    # A small language model all in int8 is 4 to 8 % worse.
    max_perplexity_ratio: float | None = Field(
        default=1.1, gt=0, description="Held-out perplexity after the compression over that before."
    )


class BaseLimits(Likeness):
    """Of what may be lost of the version before, which reads the candidate's texts, in the domains
    that both have."""

    # Extensions without training move old domains by up to 2.5 %, short finetunes by up to 7 %. A
    # domain whose expert is no longer chosen goes back toward the seed, by 40 % and more.
    max_perplexity_ratio: float | None = Field(
        default=1.1, gt=0, description="Held-out perplexity over that of the version before."
    )


class Policy(Data):
    """How much is measured, and for each stage what must be reached in every domain.

    A limit that is not set (null) is measured and told all the same.
    """

    prompts_per_domain: int = Field(default=8, ge=1, description="Held-out prefixes per domain.")
    prefix_tokens: int = Field(default=48, ge=1, description="Tokens of each prefix.")
    completion_tokens: int = Field(
        default=32, ge=1, description="Tokens the reference adds greedily to each prefix."
    )
    tokens_per_domain: int = Field(
        default=2048, ge=2, description="Held-out tokens that perplexity is measured on."
    )
    assembled: ParentLimits = Field(
        default=ParentLimits(), description="The mix before its finetune, against its parents."
    )
    finetuned: FinetunedLimits = Field(
        default=FinetunedLimits(), description="The mix after its finetune, against that before."
    )
    compressed: CompressedLimits = Field(
        default=CompressedLimits(),
        description="The mix after its compression, against that before.",
    )
    candidate: CandidateLimits = Field(
        default=CandidateLimits(), description="What is to be published, against its parents."
    )
    served: ServedLimits = Field(
        default=ServedLimits(), description="What the engine serves, against the reference network."
    )
    base: BaseLimits = Field(
        default=BaseLimits(),
        description="A mix that was made from another, against that, in the domains of both.",
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        for stage, limits in self.likenesses.items():
            check_reachable(limits, completion_tokens=self.completion_tokens, at=f"{stage}.")
        return self

    @property
    def likenesses(self) -> Mapping[Stage, Likeness]:
        """Limits of the stages in which token predictions are compared."""
        return {
            "finetuned": self.finetuned,
            "compressed": self.compressed,
            "served": self.served,
            "base": self.base,
        }
