"""Add attestations to artifacts, and overrides of failed gates

Revision 0003_attestations, after 0002_router_inputs, 2026-11-25.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003_attestations"
down_revision: str | None = "0002_router_inputs"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("artifacts", sa.Column("attestation_digest", sa.String(), nullable=True))
    op.add_column("mix_versions", sa.Column("override_digest", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("mix_versions", "override_digest")
    op.drop_column("artifacts", "attestation_digest")
