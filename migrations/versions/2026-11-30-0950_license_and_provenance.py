"""Rename columns to license and provenance

Revision 0007_license_and_provenance, after 0006_compression, 2026-11-30.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0007_license_and_provenance"
down_revision: str | None = "0006_compression"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# Table, old name, new name. A rename is safe, since the service stops before it migrates.
RENAMED = (
    ("families", "licence", "license"),
    ("experts", "licence", "license"),
    ("artifacts", "lock_digest", "provenance_digest"),
)


def upgrade() -> None:
    for table, old, new in RENAMED:
        op.alter_column(table, old, new_column_name=new)


def downgrade() -> None:
    for table, old, new in RENAMED:
        op.alter_column(table, new, new_column_name=old)
