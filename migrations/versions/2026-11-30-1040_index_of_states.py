"""Index the states of mix versions

Revision 0008_index_of_states, after 0007_license_and_provenance, 2026-11-30. Workers ask for the
unfinished versions every second.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0008_index_of_states"
down_revision: str | None = "0007_license_and_provenance"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_index("ix_mix_versions_state", "mix_versions", ["state"])


def downgrade() -> None:
    op.drop_index("ix_mix_versions_state", table_name="mix_versions")
