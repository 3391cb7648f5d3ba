"""Documents of an expert can be private, and forgotten

Revision 0016_private_documents, after 0015_imports, 2026-11-30.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016_private_documents"
down_revision: str | None = "0015_imports"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    for name in ("private_documents", "forget_documents"):
        op.add_column(
            "expert_versions",
            sa.Column(name, sa.Boolean(), server_default="false", nullable=False),
        )
    op.add_column(
        "expert_versions",
        sa.Column("documents_forgotten_at", sa.DateTime(timezone=True), nullable=True),
    )


def downgrade() -> None:
    for name in ("documents_forgotten_at", "forget_documents", "private_documents"):
        op.drop_column("expert_versions", name)
