"""The table of deployments: what runs under which model name, and at which address."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from engine.vllm_server.engine_options import EngineOptions
from registry.database.db import Base
from registry.database.tables import Artifact


class DeploymentState(StrEnum):
    """The life of a deployment, in order; see `Deployment`."""

    REQUESTED = "requested"
    STARTING = "starting"
    READY = "ready"
    ASLEEP = "asleep"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


LIVE_STATES = (
    DeploymentState.REQUESTED,
    DeploymentState.STARTING,
    DeploymentState.READY,
    DeploymentState.ASLEEP,
    DeploymentState.DRAINING,
)


class Deployment(Base):
    """A checkpoint served under a model name.

    One without an artifact is a preview of a mix that its gate has not judged yet. It becomes the
    release when it gets its artifact. The web process writes requested states (`requested`,
    `draining`); the agent carries them out and writes the others. One that is asleep has given its
    memory to others; a request for its model wakes it.
    """

    __tablename__ = "deployments"
    __table_args__ = (
        # Only one release answers for a model name; its successor may start beside it, and
        # previews may run beside it.
        Index(
            "uq_deployments_model_ready",
            "model",
            unique=True,
            postgresql_where=text("state = 'READY' AND artifact_id IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    artifact_id: Mapped[int | None] = mapped_column(ForeignKey("artifacts.id"))
    manifest_digest: Mapped[str]
    model: Mapped[str]
    # The mix as NAME@NUMBER: its engine answers under this name too. None for what was not deployed
    # with its mix.
    ref: Mapped[str | None]
    state: Mapped[DeploymentState] = mapped_column(default=DeploymentState.REQUESTED)
    address: Mapped[str | None]
    num_starts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None]
    # The host whose agent runs it; None until one has taken it.
    host: Mapped[str | None]
    # The process guard of its engine, and when that started in clock ticks after the boot.
    pid: Mapped[int | None]
    pid_started: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]
    # A pinned one never falls asleep.
    pinned: Mapped[bool] = mapped_column(default=False)
    # When a request woke it last; None again once it is ready.
    woken_at: Mapped[datetime | None]
    # Tokens that a prompt and its answer may have together, as its engine says; None before.
    context: Mapped[int | None]
    # The options of its engine that are not the defaults, see `EngineOptions.stored`.
    options: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default=text("'{}'"))

    artifact: Mapped[Artifact | None] = relationship(lazy="raise")

    @property
    def is_preview(self) -> bool:
        """Tell whether its gate has not judged it yet."""
        return self.artifact_id is None

    @property
    def engine_options(self) -> EngineOptions:
        """The options of its engine."""
        return EngineOptions.model_validate(self.options or {})

    @property
    def names(self) -> tuple[str, ...]:
        """Return the model names that its engine answers to; answers bear the first."""
        return (self.model,) if self.ref is None else (self.model, self.ref)


class AgentLease(Base):
    """Which agent acts for a host, and until when.

    Each new holder gets a higher token. What a holder with an older token still wants to write is
    refused.
    """

    __tablename__ = "agent_leases"

    host: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[int]
    holder: Mapped[str]
    expires_at: Mapped[datetime]
    # Where the service of this host answers the others; None if it listens to itself only.
    web_address: Mapped[str | None]
