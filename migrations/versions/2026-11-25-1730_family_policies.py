"""Add gate policies of families

Revision 0004_family_policies, after 0003_attestations, 2026-11-25.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0004_family_policies"
down_revision: str | None = "0003_attestations"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "family_policies",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("family_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("policy", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["family_id"], ["families.id"], name="fk_family_policies_family_id_families"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_family_policies"),
        sa.UniqueConstraint("family_id", "number", name="uq_family_policies_family_id_number"),
    )


def downgrade() -> None:
    op.drop_table("family_policies")
