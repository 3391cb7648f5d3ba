"""A deployment has options of its engine, and knows the context that its engine has

Revision 0020_engine_options, after 0019_sleeping_deployments, 2026-12-01.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0020_engine_options"
down_revision: str | None = "0019_sleeping_deployments"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column(
        "deployments", sa.Column("options", JSONB(), server_default=sa.text("'{}'"), nullable=False)
    )
    op.add_column("deployments", sa.Column("context", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("deployments", "context")
    op.drop_column("deployments", "options")
