"""Mixes are previewed: a deployment may have no artifact yet, and answers under NAME@NUMBER too

Revision 0018_previews, after 0017_input_moments, 2026-12-01.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018_previews"
down_revision: str | None = "0017_input_moments"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

INDEX = "uq_deployments_model_ready"


def upgrade() -> None:
    op.add_column("deployments", sa.Column("manifest_digest", sa.String(), nullable=True))
    op.execute(
        "UPDATE deployments SET manifest_digest = artifacts.manifest_digest"
        " FROM artifacts WHERE artifacts.id = deployments.artifact_id"
    )
    op.alter_column("deployments", "manifest_digest", nullable=False)
    op.alter_column("deployments", "artifact_id", nullable=True)
    op.add_column("deployments", sa.Column("ref", sa.String(), nullable=True))
    _index_ready("state = 'READY' AND artifact_id IS NOT NULL")
    op.add_column(
        "mix_versions",
        sa.Column("preview", sa.Boolean(), server_default=sa.false(), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("mix_versions", "preview")
    op.execute("DELETE FROM deployments WHERE artifact_id IS NULL")
    _index_ready("state = 'READY'")
    op.drop_column("deployments", "ref")
    op.alter_column("deployments", "artifact_id", nullable=False)
    op.drop_column("deployments", "manifest_digest")


def _index_ready(condition: str) -> None:
    op.drop_index(INDEX, table_name="deployments")
    op.create_index(
        INDEX, "deployments", ["model"], unique=True, postgresql_where=sa.text(condition)
    )
