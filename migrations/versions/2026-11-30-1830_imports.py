"""Versions of experts are imported from adapters and other sources

Revision 0015_imports, after 0014_agent_leases, 2026-11-30. A version has no manifest until its
import has ended.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0015_imports"
down_revision: str | None = "0014_agent_leases"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

TEXTS = ("imported_from", "progress")


def upgrade() -> None:
    for name in TEXTS:
        op.add_column("expert_versions", sa.Column(name, sa.String(), nullable=True))
    source = sa.Column("source", postgresql.JSONB(astext_type=sa.Text()), nullable=True)
    op.add_column("expert_versions", source)
    op.alter_column("expert_versions", "manifest_digest", nullable=True)


def downgrade() -> None:
    op.execute("DELETE FROM expert_versions WHERE manifest_digest IS NULL")
    op.alter_column("expert_versions", "manifest_digest", nullable=False)
    for name in ("source", *TEXTS):
        op.drop_column("expert_versions", name)
