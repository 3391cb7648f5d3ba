"""Deployments fall asleep to make room for others, unless they are pinned

Revision 0019_sleeping_deployments, after 0018_previews, 2026-12-01.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0019_sleeping_deployments"
down_revision: str | None = "0018_previews"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "deployments", sa.Column("pinned", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("deployments", sa.Column("woken_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.execute("UPDATE deployments SET state = 'REQUESTED' WHERE state = 'ASLEEP'")
    op.drop_column("deployments", "woken_at")
    op.drop_column("deployments", "pinned")
