"""Add router inputs to domain embeddings

Revision 0002_router_inputs, after 0001_first, 2026-11-24.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002_router_inputs"
down_revision: str | None = "0001_first"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("domain_embeddings", sa.Column("states_digest", sa.String(), nullable=True))
    op.add_column(
        "domain_embeddings", sa.Column("states_embedder_digest", sa.String(), nullable=True)
    )
    op.add_column("domain_embeddings", sa.Column("num_tokens", sa.Integer(), nullable=True))


def downgrade() -> None:
    for column in ("num_tokens", "states_embedder_digest", "states_digest"):
        op.drop_column("domain_embeddings", column)
