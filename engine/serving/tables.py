"""Deployments: which artifact should run under which model name, and where it does."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from registry.db import Base
from registry.tables import Artifact


class DeploymentState(StrEnum):
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
    """The web writes wishes (`requested`, `draining`); the agent makes them true."""

    __tablename__ = "deployments"
    __table_args__ = (
        # One model name answers from one place; its successor may start beside it.
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
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ready_at: Mapped[datetime | None]

    artifact: Mapped[Artifact] = relationship(lazy="raise")
