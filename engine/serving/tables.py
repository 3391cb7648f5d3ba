"""The table of deployments: which artifact runs under which model name, and at which address."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.database.db import Base
from registry.database.tables import Artifact


class DeploymentState(StrEnum):
    """The life of a deployment, in order; see `Deployment`."""

    REQUESTED = "requested"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


LIVE_STATES = (
    DeploymentState.REQUESTED,
    DeploymentState.STARTING,
    DeploymentState.READY,
    DeploymentState.DRAINING,
)


class Deployment(Base):
    """An artifact served under a model name.

    The web process writes requested states (`requested`, `draining`); the agent carries them out
    and writes the others.
    """

    __tablename__ = "deployments"
    __table_args__ = (
        # Only one deployment answers for a model name; its successor may start beside it.
        Index(
            "uq_deployments_model_ready",
            "model",
            unique=True,
            postgresql_where=text("state = 'READY'"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    artifact_id: Mapped[int] = mapped_column(ForeignKey("artifacts.id"))
    model: Mapped[str]
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

    artifact: Mapped[Artifact] = relationship(lazy="raise")


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
