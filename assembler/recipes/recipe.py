"""The request as data: which experts, how they are assembled, finetuned and gated.

A recipe with every version pinned travels with the mix, and its digest names the request. What the
presets fill in stands in `assembler.recipes.presets`.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from assembler.compute_dtype import ComputingDtype, fastest
from engine.compression.int8_curve import Compression
from engine.gates.policy import Policy
from registry.checkpoints.architecture import Attention, Combine, Router
from registry.checkpoints.manifests import json_digest
from registry.errors import Problem, pointer

Preset = Literal[
    "nexus",
    "nexus-paper",
    "linear",
    "mlp",
    "flexolmo",
    "btx",
    "bam",
    "bam-shared-kv",
    "merge",
]
# Where a router's rows come from: the family projection, documents read by the seed, or chance.
RouterInit = Literal["projection", "documents", "random"]
# What a router without a projection does with the rows it has when an expert joins.
RouterExtension = Literal["append", "reset"]
Trained = Literal["router", "attention", "shared", "experts", "all"]


class Training(BaseModel):
    """How long a network trains, and in which steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(ge=0, le=10**12, description="0 skips the training.")
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, description="Learning rate of the optimizer."
    )
    batch_size: int = Field(default=8, ge=1, description="Sequences per step.")
    sequence_length: int = Field(default=128, ge=8, description="Tokens in one sequence.")
    seed: int = Field(default=0, ge=0, description="Seed of the order of the text.")

    @property
    def num_steps(self) -> int:
        return -(-self.tokens // (self.batch_size * self.sequence_length))


class Finetune(Training):
    """How the assembled mix is trained on a mixture of its experts' documents."""

    # The ablations (docs, claims) are about these. Routers need a far higher rate than what is
    # pretrained; with attention, which no expert has adapted to its domain, they cost no more
    # than alone. Experts that train too reach a little more, and are no longer shared.
    # How many tokens it has, if nobody says, depends on the number of experts: see
    # `assembler.recipes.presets`.
    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="Of all but routers.")
    router_learning_rate: float = Field(
        default=3e-3, gt=0, le=1, description="Learning rate of the routers."
    )
    batch_size: int = Field(default=4, ge=1, description="Sequences per step.")
    train: Trained = Field(default="attention", description="What learns with the routers.")
    dtype: ComputingDtype = Field(
        default_factory=fastest,
        description="What products are computed in, if not told what is fastest on the machine that"
        " reads the request; what trains is float32.",
    )
    load_balance_weight: float = Field(
        default=0.0, ge=0, description="Weight of the loss that spreads tokens evenly over experts."
    )
    z_loss_weight: float = Field(
        default=0.0, ge=0, description="Weight of the loss that keeps router logits small."
    )
    domain_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the loss that tells routers the expert of each document, in which"
        " all domains count alike.",
    )
    domain_loss_q: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The q of that loss, generalized cross-entropy: 1 counts the share of routing"
        " that goes past the document's own expert, 0 is cross-entropy. If not told, 1 where three"
        " quarters of the tokens already go to it, else 0; the metrics of each step say which.",
    )
    new_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the sequences that are of experts which the base does not have.",
    )


class ProjectionTraining(BaseModel):
    """How a family projection is trained; part of its identity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens_per_domain: int = Field(
        default=8192, ge=1, description="Training text that is read of each domain, at most."
    )
    # Without any, directions that hardly vary decide everything (half of all tokens routed right);
    # from 0.0003 to 0.3 it makes no difference.
    shrinkage: float = Field(
        default=0.01, gt=0, lt=1, description="Share of an even covariance in that within domains."
    )
    # Of the right experts' gain 0.85 is reached with 0, 0.92 with 0.03, 0.05 and 0.1.
    own_weight: float = Field(
        default=0.05,
        ge=0,
        description="Of an expert's own covariance, beside that within domains, for its own row.",
    )
    # From 2 to 8 it makes no difference.
    logit_spread: float = Field(
        default=3.0,
        gt=0,
        description="Standard deviation of an expert's logit within a domain, whichever it is.",
    )


class Assembly(BaseModel):
    """How dense checkpoints become one network; what of it a preset does not say is as below."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset = Field(
        default="nexus", description="Name of the preset that fills in the other fields."
    )
    combine: Combine = Field(
        default="convex",
        description="How the outputs of the shared and the routed experts are combined: `convex`"
        " weights them to a sum of 1, `sum` adds them.",
    )
    router: Router = Field(default="nexus", description="Kind of the routers.")
    router_init: RouterInit = Field(
        default="projection",
        description="Where router rows come from: the family projection, documents read by the"
        " seed, or chance.",
    )
    router_extension: RouterExtension = Field(
        default="append", description="Of routers without a projection, when a mix is extended."
    )
    center_embeddings: bool = Field(
        default=True, description="Take the family's mean domain from each domain embedding."
    )
    shared_expert: bool = Field(
        default=True,
        description="The seed's FFN is met by every token; else the seed is routed too.",
    )
    attention: Attention = Field(
        default="average",
        description="What becomes of the experts' attention: one average, one of each expert, or"
        " one of each with common keys and values.",
    )
    attention_experts_per_token: int = Field(
        default=0, ge=0, description="0: every token takes all attention experts."
    )
    experts_per_token: int = Field(
        default=1, ge=1, description="Routed experts that each token takes."
    )
    norm_topk_prob: bool = Field(
        default=False, description="Divide the chosen experts' probabilities by their sum."
    )
    seed: int = Field(default=0, ge=0, description="Of what `router_init: random` draws.")

    @property
    def embeds_with_encoder(self) -> bool:
        """Whether routers see an encoder's vectors, as the paper's do: a projection that is learned
        from nothing has no use for the space of router inputs."""
        return self.router == "nexus" and self.router_init == "random"

    @property
    def embeds_with_states(self) -> bool:
        """Whether rows are made of the experts' router inputs."""
        return self.needs_projection and not self.embeds_with_encoder

    @property
    def needs_projection(self) -> bool:
        """A `nexus` router takes at least its center from the family's projection."""
        return self.preset != "merge" and (
            self.router == "nexus" or self.router_init == "projection"
        )


class Recipe(Assembly):
    """A request with everything pinned: `experts`, `projection` and `base` are `name@number`."""

    family: str = Field(description="Name of the family.")
    experts: tuple[str, ...] = Field(min_length=2, description="The experts, `NAME@NUMBER` each.")
    projection: str | None = Field(
        default=None,
        description="The family projection, `NAME@NUMBER`; null where the recipe needs none.",
    )
    base: str | None = Field(
        default=None, description="The mix version that this one extends, reduces or refreshes."
    )
    finetune: Finetune = Field(description="How the mix is finetuned.")
    compress: Compression | None = Field(
        default=None,
        description="How small the mix is to become, or how true to stay; else it"
        " is not compressed.",
    )
    gates: Policy = Field(default=Policy(), description="What the mix must reach to be published.")

    @property
    def domains(self) -> tuple[str, ...]:
        """The experts' names, which are also the names of their domains."""
        return tuple(ref.partition("@")[0] for ref in self.experts)

    @property
    def num_experts(self) -> int:
        """How many are routed; of a plain mean none."""
        if self.preset == "merge":
            return 0
        return len(self.experts) + (not self.shared_expert)

    @property
    def digest(self) -> str:
        return json_digest(self.model_dump(mode="json"))

    def contradictions(self) -> Iterator[Problem]:
        """Fields that cannot stand together, each with a pointer to it."""
        if self.preset == "merge":
            return
        for field in ("experts_per_token", "attention_experts_per_token"):
            if getattr(self, field) > self.num_experts:
                detail = f"is more than the {self.num_experts} experts of the mix"
                yield Problem(pointer(field), detail)
        if self.combine == "convex" and not self.shared_expert:
            yield Problem("/combine", "'convex' needs the shared expert; take 'sum' without it")
        if self.combine == "convex" and self.norm_topk_prob:
            yield Problem("/norm_topk_prob", "leaves nothing to the shared expert of 'convex'")
