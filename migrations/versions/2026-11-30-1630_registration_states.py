"""States and reasons of registrations, license and description of each version

Revision 0012_registration_states, after 0011_leases, 2026-11-30. A version that was ready
without a domain embedding is embedding from now on. Projections and policies go with their family.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012_registration_states"
down_revision: str | None = "0011_leases"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

OWNED = ("projections", "family_policies")


def upgrade() -> None:
    for table in ("families", "expert_versions"):
        op.add_column(table, sa.Column("error", sa.String(), nullable=True))
    for table in ("families", "expert_versions", "projections"):
        op.add_column(
            table, sa.Column("num_retries", sa.Integer(), server_default="0", nullable=False)
        )
    for name in ("license", "description"):
        op.add_column("expert_versions", sa.Column(name, sa.String(), nullable=True))
    op.execute(
        "UPDATE expert_versions SET license = experts.license, description = experts.description"
        " FROM experts WHERE experts.id = expert_versions.expert_id"
    )
    for name in ("license", "description"):
        op.alter_column("expert_versions", name, nullable=False)
    op.execute(
        "UPDATE expert_versions SET state = 'EMBEDDING' WHERE state = 'READY' AND NOT EXISTS"
        " (SELECT FROM domain_embeddings WHERE expert_version_id = expert_versions.id)"
    )
    _refer_to_families(ondelete="CASCADE")


def downgrade() -> None:
    _refer_to_families(ondelete=None)
    op.execute("UPDATE expert_versions SET state = 'READY' WHERE state = 'EMBEDDING'")
    for table in ("families", "expert_versions"):
        op.execute(f"UPDATE {table} SET state = 'UPLOADING' WHERE state IN ('CHECKING', 'FAILED')")
        op.drop_column(table, "error")
    for table in ("families", "expert_versions", "projections"):
        op.drop_column(table, "num_retries")
    for name in ("license", "description"):
        op.drop_column("expert_versions", name)


def _refer_to_families(*, ondelete: str | None) -> None:
    for table in OWNED:
        name = f"fk_{table}_family_id_families"
        op.drop_constraint(name, table, type_="foreignkey")
        op.create_foreign_key(name, table, "families", ["family_id"], ["id"], ondelete=ondelete)
