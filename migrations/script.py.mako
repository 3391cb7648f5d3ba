"""${message}

Revision ${up_revision}, after ${down_revision | comma,n}, ${create_date.strftime("%Y-%m-%d")}.
"""
<%text>
# Before you commit this:
# - env.py gives up after 4 s of waiting for a lock (lock_timeout), because whatever queues behind a
#   waiting ALTER TABLE stands still. Keep each migration short; fill large tables outside of it.
# - Old processes run beside the new tables for a while. Change in two releases: add what is new
#   (nullable or with a default), move the code over, and only then remove what is old.
</%text>
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision: str = ${repr(up_revision)}
down_revision: str | None = ${repr(down_revision)}
branch_labels: Sequence[str] | None = ${repr(branch_labels)}
depends_on: Sequence[str] | None = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
