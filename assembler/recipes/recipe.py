"""Recipes: which experts make a mix, and how it is assembled, finetuned, compressed and gated.

A recipe pins every version and is stored with its mix. Its digest identifies the request. The
values of presets are in `assembler.recipes.presets`.
"""

from collections.abc import Iterator, Mapping
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
# Result of an assembly: a mixture with routed experts, or one dense network, the mean of all.
Kind = Literal["mixture", "dense_merge"]
KINDS: Mapping[Preset, Kind] = {
    "nexus": "mixture",
    "nexus-paper": "mixture",
    "linear": "mixture",
    "mlp": "mixture",
    "flexolmo": "mixture",
    "btx": "mixture",
    "bam": "mixture",
    "bam-shared-kv": "mixture",
    "merge": "dense_merge",
}
# How what is not routed becomes one: the plain mean of the experts, or the tensor that answers what
# each expert read most nearly as the expert did (RegMean, arXiv 2212.09849).
Averaging = Literal["mean", "regression"]
# Source of router rows: the family projection, documents that the seed reads, a ridge regression on
# the experts' router inputs, or chance.
RouterInit = Literal["projection", "documents", "dume", "random"]
# Sources that read documents with networks and give rows, which no projection can give.
GIVES_ROWS: frozenset[RouterInit] = frozenset({"documents", "dume"})
# How a router without a projection treats its rows when an expert is added.
RouterExtension = Literal["append", "reset"]
# Limits on what no model has, so that no count of a plan overflows.
MAX_TOKENS, MAX_EXPERTS, MAX_SEED = 2**24, 1000, 2**63 - 1
Trained = Literal["router", "attention", "shared", "experts", "all"]


class Training(BaseModel):
    """Length and steps of a training."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    tokens: int = Field(ge=0, le=10**12, description="0 skips the training.")
    learning_rate: float = Field(
        default=1e-3, gt=0, le=1, description="Learning rate of the optimizer."
    )
    batch_size: int = Field(default=8, ge=1, le=65_536, description="Sequences per step.")
    sequence_length: int = Field(
        default=128, ge=8, le=MAX_TOKENS, description="Tokens in one sequence."
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Seed of the order of the text.")

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return -(-self.tokens // (self.batch_size * self.sequence_length))


class Finetune(Training):
    """The training of an assembled mix on the documents of its experts."""

    # The ablations (docs, claims) measure these defaults. Routers need a far higher learning rate
    # than pretrained weights. Attention is not adapted to any domain, and training it with the
    # routers costs no more than the routers alone. Training the experts too gives a little more,
    # but then their tensors are no longer shared with other mixes. The default number of tokens
    # depends on the number of experts; see `assembler.recipes.presets`.
    learning_rate: float = Field(
        default=1e-4, gt=0, le=1, description="Learning rate of all weights but the routers."
    )
    router_learning_rate: float = Field(
        default=3e-3, gt=0, le=1, description="Learning rate of the routers."
    )
    batch_size: int = Field(default=4, ge=1, le=65_536, description="Sequences per step.")
    train: Trained = Field(
        default="attention", description="Weights that are trained with the routers."
    )
    dtype: ComputingDtype = Field(
        default_factory=fastest,
        description="Dtype of matrix products. The default is the fastest on the machine that reads"
        " the request. Trained weights are float32.",
    )
    load_balance_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the loss that spreads tokens evenly over experts, which is added up"
        " over blocks.",
    )
    z_loss_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the loss that keeps router logits small, which is added up over"
        " blocks.",
    )
    domain_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the loss that teaches routers the expert of each document. All"
        " domains count equally in it.",
    )
    domain_loss_q: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="The q of that loss, a generalized cross-entropy: 1 counts the share of routing"
        " that misses the document's own expert, 0 is cross-entropy. The default is 1 if three"
        " quarters of the tokens already go to that expert, else 0; the metrics of each step show"
        " it.",
    )
    new_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of the sequences that come from experts which the base does not have.",
    )


class ProjectionTraining(BaseModel):
    """Training of a family projection; these fields are part of the projection's identity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    tokens_per_domain: int = Field(
        default=8192,
        ge=1,
        le=10**12,
        description="Largest number of tokens that are read from each domain.",
    )
    # With 0, directions with little variance dominate, and half of all tokens are routed right.
    # From 0.0003 to 0.3 it makes no difference.
    shrinkage: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="Share of an isotropic covariance in the covariance within domains.",
    )
    # The routers reach 0.85 of the right experts' gain with 0, and 0.92 with 0.03, 0.05 and 0.1.
    own_weight: float = Field(
        default=0.05,
        ge=0,
        description="Weight of an expert's own covariance in its own router row, beside the"
        " covariance within domains.",
    )
    # From 1.5 to 6 the share of the experts' gain is the same. Text of no expert's domain becomes
    # worse with every step; at 0.75 it is about as the seed has it.
    logit_spread: float = Field(
        default=0.75,
        gt=0,
        description="Standard deviation of an expert's logit within any domain.",
    )


class Assembly(BaseModel):
    """How dense checkpoints become one network. Presets change some of these defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    preset: Preset = Field(
        default="nexus", description="Name of the preset that fills in the other fields."
    )
    combine: Combine = Field(
        default="convex",
        description="How the outputs of the shared and the routed experts are combined: with"
        " `convex` their weights add up to 1, `sum` adds them.",
    )
    router: Router = Field(default="nexus", description="Kind of the routers.")
    router_init: RouterInit = Field(
        default="projection",
        description="Source of the router rows: the family projection, `documents` that the seed"
        " reads, the ridge regression of `dume` (arXiv 2603.29765), or chance.",
    )
    # Excluded at its default, so that recipes from before this field keep their digests.
    router_scale: float = Field(
        default=1.0,
        gt=0,
        le=1e4,
        exclude_if=lambda scale: scale == 1,
        description="Factor on the router rows that are not drawn at random. A smaller one makes"
        " routers less sure: more of a `convex` output then comes from the shared expert, and text"
        " of no expert's domain suffers less.",
    )
    router_extension: RouterExtension = Field(
        default="append",
        description="How routers without a projection are extended: `append` keeps their rows and"
        " adds new ones, `reset` starts all rows again.",
    )
    center_embeddings: bool = Field(
        default=True, description="Subtract the family's mean domain from each domain embedding."
    )
    shared_expert: bool = Field(
        default=True,
        description="Every token passes the seed's FFN; if false, the seed is a routed expert.",
    )
    attention: Attention = Field(
        default="average",
        description="Attention of the mix: the average of all experts, one attention per expert, or"
        " one per expert with common keys and values.",
    )
    # Excluded at its default, so that recipes from before this field keep their digests.
    averaging: Averaging = Field(
        default="mean",
        exclude_if=lambda averaging: averaging == "mean",
        description="How attention and the head become one: the `mean` of all experts,"
        " or a `regression` on what each expert read (RegMean, arXiv 2212.09849). What no expert"
        " changed is the seed's by either; norms, biases and embeddings that are not the head are"
        " means by either.",
    )
    attention_experts_per_token: int = Field(
        default=0,
        ge=0,
        le=MAX_EXPERTS,
        description="Attention experts that each token takes; 0 means all of them.",
    )
    experts_per_token: int = Field(
        default=1, ge=1, le=MAX_EXPERTS, description="Routed experts that each token takes."
    )
    norm_topk_prob: bool = Field(
        default=False, description="Divide the chosen experts' probabilities by their sum."
    )
    seed: int = Field(
        default=0,
        ge=0,
        le=MAX_SEED,
        description="Seed of the random rows of `router_init: random`.",
    )

    @property
    def kind(self) -> Kind:
        """Result of the assembly: a mixture, or a dense network.

        It follows from the preset and is not stored. A stored field would change the digest of
        every recipe, and signatures of published mixes cover these digests.
        """
        return KINDS[self.preset]

    @property
    def embeds_with_encoder(self) -> bool:
        """Whether domain embeddings are vectors of the text encoder, as in the Nexus paper.

        This is so for a projection that starts at random; it does not need the space of router
        inputs.
        """
        return self.router == "nexus" and self.router_init == "random"

    @property
    def embeds_with_states(self) -> bool:
        """Whether domain embeddings are router inputs of the experts."""
        return self.needs_projection and not self.embeds_with_encoder

    @property
    def averages_by_regression(self) -> bool:
        """Whether the assembly uses what experts read. A routed seed is averaged too and read
        nothing, so there the mean is taken.
        """
        return self.averaging == "regression" and self.shared_expert and self.kind == "mixture"

    @property
    def needs_projection(self) -> bool:
        """Whether the assembly needs the family projection; a `nexus` router needs its center."""
        return self.kind == "mixture" and (
            self.router == "nexus" or self.router_init == "projection"
        )


class Recipe(Assembly):
    """A request with pinned versions: `experts`, `projection` and `base` are `name@number`."""

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
        description="Budget of the compression, in size or in quality; null means no compression.",
    )
    gates: Policy = Field(
        default=Policy(), description="Limits that the mix must meet to be published."
    )

    @property
    def domains(self) -> tuple[str, ...]:
        """The experts' names, which are also the names of their domains."""
        return tuple(ref.partition("@")[0] for ref in self.experts)

    @property
    def num_experts(self) -> int:
        """Number of routed experts; 0 for a dense merge."""
        if self.kind == "dense_merge":
            return 0
        return len(self.experts) + (not self.shared_expert)

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe as canonical JSON, in hexadecimal."""
        return json_digest(self.model_dump(mode="json"))

    def contradictions(self) -> Iterator[Problem]:
        """Yield the fields that contradict each other, each with a pointer."""
        if self.kind == "dense_merge":
            if self.averaging == "regression":
                yield Problem("/averaging", f"{self.preset!r} is a mean; leave it at 'mean'")
            return
        for field in ("experts_per_token", "attention_experts_per_token"):
            if getattr(self, field) > self.num_experts:
                detail = f"is more than the {self.num_experts} experts of the mix"
                yield Problem(pointer(field), detail)
        if self.router == "nexus" and self.router_init in GIVES_ROWS:
            detail = f"{self.router_init!r} gives rows, which no projection gives; take 'linear'"
            yield Problem("/router_init", f"{detail} as the router")
        if self.router_init == "random" and self.router_scale != 1:
            yield Problem("/router_scale", "scales no rows that are drawn at random; leave it at 1")
        if self.combine == "convex" and not self.shared_expert:
            yield Problem("/combine", "'convex' needs the shared expert; take 'sum' without it")
        if self.combine == "convex" and self.norm_topk_prob:
            yield Problem("/norm_topk_prob", "leaves nothing to the shared expert of 'convex'")
