"""The request as data: which experts, how they are assembled, finetuned and gated.

A recipe with every version pinned travels with the mix, and its digest names the request.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.gates import Policy
from registry.architecture import Attention, Combine, Router
from registry.manifests import json_digest

Trained = Literal["router", "attention", "shared", "experts", "all"]


class Training(BaseModel):
    """How long a network trains, and in which steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(ge=0, le=10**12, description="0 skips the training.")
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    batch_size: int = Field(default=8, ge=1, description="Sequences per step.")
    sequence_length: int = Field(default=128, ge=8)
    seed: int = Field(default=0, ge=0)

    @property
    def num_steps(self) -> int:
        return -(-self.tokens // (self.batch_size * self.sequence_length))


class Finetune(Training):
    """How the assembled mix is trained on a mixture of its experts' documents."""

    # Measured with three experts of a 135M seed: small steps at this rate reach more of the right
    # expert's gain than half as many larger ones, for the same tokens and time.
    tokens: int = Field(default=24_576, ge=0, le=10**12, description="0 skips the finetune.")
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    batch_size: int = Field(default=4, ge=1, description="Sequences per step.")
    train: Trained = "router"
    load_balance_weight: float = Field(default=0.0, ge=0)
    domain_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the cross-entropy between routing and the document's own expert.",
    )


class ProjectionTraining(BaseModel):
    """How a family projection is trained; part of its identity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    documents_per_domain: int = Field(default=48, ge=2)
    characters_per_document: int = Field(default=900, ge=16)
    sequence_length: int = Field(default=128, ge=8, description="Tokens read of each document.")
    states_per_document: int = Field(
        default=24, ge=1, description="Hidden states kept of each document, per block."
    )
    ridge: float = Field(
        default=0.03, gt=0, description="Added to the covariance of states, of their mean variance."
    )
    sharpness: float = Field(
        default=5.0,
        gt=0,
        description="Factor on the logits beyond what is best between neighbouring documents: the "
        "domains of experts lie further apart than those.",
    )
    seed: int = 0


class Recipe(BaseModel):
    """`experts` and `projection` are pinned, `name@number`, once a request was accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str
    experts: tuple[str, ...] = Field(min_length=2)
    projection: str
    combine: Combine = "convex"
    router: Router = "nexus"
    attention: Attention = "average"
    experts_per_token: int = Field(default=1, ge=1)
    finetune: Finetune = Finetune()
    gates: Policy = Policy()

    @property
    def digest(self) -> str:
        return json_digest(self.model_dump(mode="json"))
