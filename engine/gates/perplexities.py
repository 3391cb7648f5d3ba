"""Held-out perplexities of a mix and of its parents, its routing, and metrics of a stage."""

from pydantic import Field, FiniteFloat

from engine.gates.policy import Stage
from engine.gates.report import Data, Metric


class Perplexities(Data):
    """Held-out perplexity of one domain under every model of a mix's making."""

    seed: FiniteFloat = Field(description="Perplexity of the seed.")
    experts: dict[str, FiniteFloat] = Field(
        description="Perplexity of experts, by name: of the domain's own expert; of all experts on"
        " general text, and everywhere if the policy asks for baselines."
    )
    merge: FiniteFloat | None = Field(
        default=None,
        description="Perplexity of the mean of seed and experts; null unless the policy asks for"
        " baselines.",
    )
    assembled: FiniteFloat = Field(description="Perplexity of the mix before its finetune.")
    finetuned: FiniteFloat | None = Field(
        default=None, description="Perplexity of the mix after its finetune; null without one."
    )
    compressed: FiniteFloat | None = Field(
        default=None, description="Perplexity of the mix after its compression; null without one."
    )
    base: FiniteFloat | None = Field(
        default=None,
        description="Perplexity of the version that the mix was made from; null without one.",
    )

    @property
    def trained(self) -> float:
        """The perplexity of the mix before any compression."""
        return self.assembled if self.finetuned is None else self.finetuned

    @property
    def candidate(self) -> float:
        """The perplexity of the mix to be published."""
        return self.trained if self.compressed is None else self.compressed


class Routing(Data):
    """Where a mix sends the held-out text of one domain."""

    assembled: dict[str, FiniteFloat] = Field(
        description="Share of the tokens whose first choice is an expert, over all blocks, by its"
        " name, before the finetune."
    )
    finetuned: dict[str, FiniteFloat] | None = Field(
        default=None, description="The same after the finetune; null without one."
    )


class StageMetric(Metric):
    """A metric of one stage (see `engine.gates.policy`)."""

    stage: Stage = Field(description="The stage of the gate that the metric belongs to.")
