"""Add the moments of what attention and the head read to domain embeddings

Revision 0017_input_moments, after 0016_private_documents, 2026-12-01.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0017_input_moments"
down_revision: str | None = "0016_private_documents"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("domain_embeddings", sa.Column("moments_digest", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("domain_embeddings", "moments_digest")
