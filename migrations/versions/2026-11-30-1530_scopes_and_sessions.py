"""Scopes, expiry and last use of keys; sessions of browsers and links that begin one

Revision 0010_scopes_and_sessions, after 0009_blob_permissions, 2026-11-30. Keys that exist may do
everything, as before.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010_scopes_and_sessions"
down_revision: str | None = "0009_blob_permissions"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

ALL = "'{admin,deploy,infer,publish,read}'"


def upgrade() -> None:
    kind = sa.ARRAY(sa.String())
    op.add_column(
        "api_keys", sa.Column("scopes", kind, server_default=sa.text(ALL), nullable=False)
    )
    # The default was for the rows that exist; a new key names its scopes.
    op.alter_column("api_keys", "scopes", server_default=None)
    for name in ("expires_at", "last_used_at"):
        op.add_column("api_keys", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "browser_sessions",
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("api_key_id", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_keys.id"], name="fk_browser_sessions_api_key_id_api_keys"
        ),
        sa.PrimaryKeyConstraint("sha256", name="pk_browser_sessions"),
    )
    op.create_table(
        "sign_in_links",
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("api_key_id", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_keys.id"], name="fk_sign_in_links_api_key_id_api_keys"
        ),
        sa.PrimaryKeyConstraint("sha256", name="pk_sign_in_links"),
    )


def downgrade() -> None:
    op.drop_table("sign_in_links")
    op.drop_table("browser_sessions")
    for name in ("last_used_at", "expires_at", "scopes"):
        op.drop_column("api_keys", name)
