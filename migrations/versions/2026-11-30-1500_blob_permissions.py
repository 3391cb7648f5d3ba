"""Who may use a blob in an announcement

Revision 0009_blob_permissions, after 0008_index_of_states, 2026-11-30. The tables begin empty:
which key has sent a blob was not noted before, so a blob that a new announcement names and that the
seed does not have is sent once more. Versions that are ready stay so.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009_blob_permissions"
down_revision: str | None = "0008_index_of_states"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "sent_blobs",
        sa.Column("sender", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("sender", "digest", name="pk_sent_blobs"),
    )
    op.create_table(
        "downloadable_blobs",
        sa.Column("digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_downloadable_blobs"),
    )


def downgrade() -> None:
    op.drop_table("downloadable_blobs")
    op.drop_table("sent_blobs")
