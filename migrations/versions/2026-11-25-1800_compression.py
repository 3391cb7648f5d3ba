"""Add the compressed manifest of mixes

Revision 0006_compression, after 0005_kept_candidates, 2026-11-25.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006_compression"
down_revision: str | None = "0005_kept_candidates"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("mix_versions", sa.Column("compressed_digest", sa.String(), nullable=True))
    op.add_column("mix_versions", sa.Column("curve_digest", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("mix_versions", "curve_digest")
    op.drop_column("mix_versions", "compressed_digest")
