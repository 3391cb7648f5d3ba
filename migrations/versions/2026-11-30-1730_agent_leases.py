"""Agents hold leases, and deployments belong to hosts

Revision 0014_agent_leases, after 0013_housekeeping, 2026-11-30. Deployments of
before belong to nobody, and the first agent takes them.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014_agent_leases"
down_revision: str | None = "0013_housekeeping"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "agent_leases",
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("web_address", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_agent_leases")),
    )
    op.add_column("deployments", sa.Column("host", sa.String(), nullable=True))
    op.add_column("deployments", sa.Column("pid", sa.Integer(), nullable=True))
    op.add_column("deployments", sa.Column("pid_started", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("deployments", "pid_started")
    op.drop_column("deployments", "pid")
    op.drop_column("deployments", "host")
    op.drop_table("agent_leases")
