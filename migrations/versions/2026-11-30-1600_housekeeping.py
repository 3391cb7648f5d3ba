"""What house-keeping did, and which blobs it found missing or damaged

Revision 0013_housekeeping, after 0012_registration_states, 2026-11-30. Both tables begin empty.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0013_housekeeping"
down_revision: str | None = "0012_registration_states"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "housekeeping_runs",
        sa.Column("id", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("result", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_housekeeping_runs"),
    )
    op.create_table(
        "blob_faults",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("fault", sa.String(), nullable=False),
        sa.Column("needed_by", JSONB(), nullable=False),
        sa.Column(
            "found_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_blob_faults"),
    )


def downgrade() -> None:
    op.drop_table("blob_faults")
    op.drop_table("housekeeping_runs")
