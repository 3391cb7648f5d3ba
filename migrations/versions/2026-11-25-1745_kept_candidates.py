"""Add the time until which a refused candidate is kept

Revision 0005_kept_candidates, after 0004_family_policies, 2026-11-25.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005_kept_candidates"
down_revision: str | None = "0004_family_policies"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    column = sa.Column("kept_until", sa.DateTime(timezone=True), nullable=True)
    op.add_column("mix_versions", column)


def downgrade() -> None:
    op.drop_column("mix_versions", "kept_until")
