"""Create the first tables

Revision 0001_first, after , 2026-11-24.
"""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import Vector
from sqlalchemy.dialects import postgresql

revision: str = "0001_first"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _created_at() -> sa.Column[datetime]:
    """Return a column for the time at which a row is inserted."""
    time = sa.DateTime(timezone=True)
    return sa.Column("created_at", time, server_default=sa.text("now()"), nullable=False)


def upgrade() -> None:
    # Only a superuser may create it; on other servers it must exist already, and is skipped here.
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        _created_at(),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("sha256", name="uq_api_keys_sha256"),
    )
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("manifest_digest", sa.String(), nullable=False),
        sa.Column("recipe", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("recipe_digest", sa.String(), nullable=False),
        sa.Column("gate_report_digest", sa.String(), nullable=False),
        sa.Column("lock_digest", sa.String(), nullable=True),
        _created_at(),
        sa.PrimaryKeyConstraint("id", name="pk_artifacts"),
        sa.UniqueConstraint(
            "manifest_digest", "recipe_digest", name="uq_artifacts_manifest_digest_recipe_digest"
        ),
    )
    op.create_table(
        "families",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("licence", sa.String(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "UPLOADING", "READY", "RETIRED", name="versionstate", native_enum=False, length=32
            ),
            nullable=False,
        ),
        sa.Column("seed_digest", sa.String(), nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("id", name="pk_families"),
        sa.UniqueConstraint("name", name="uq_families_name"),
    )
    op.create_table(
        "idempotent_requests",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("api_key_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("body_digest", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("response", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("id", name="pk_idempotent_requests"),
        sa.UniqueConstraint(
            "api_key_id", "path", "key", name="uq_idempotent_requests_api_key_id_path_key"
        ),
    )
    op.create_table(
        "job_events",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("id", name="pk_job_events"),
    )
    op.create_index("ix_job_events_job_id", "job_events", ["job_id"], unique=False)
    op.create_table(
        "deployments",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("artifact_id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "REQUESTED",
                "STARTING",
                "READY",
                "DRAINING",
                "STOPPED",
                "FAILED",
                name="deploymentstate",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("num_starts", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        _created_at(),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name="fk_deployments_artifact_id_artifacts"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_deployments"),
    )
    op.create_index(
        "uq_deployments_model_ready",
        "deployments",
        ["model"],
        unique=True,
        postgresql_where=sa.text("state = 'READY'"),
    )
    op.create_table(
        "experts",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("family_id", sa.Integer(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("licence", sa.String(), nullable=False),
        _created_at(),
        sa.ForeignKeyConstraint(
            ["family_id"], ["families.id"], name="fk_experts_family_id_families"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_experts"),
        sa.UniqueConstraint("name", name="uq_experts_name"),
    )
    op.create_table(
        "mixes",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("family_id", sa.Integer(), nullable=False),
        _created_at(),
        sa.ForeignKeyConstraint(["family_id"], ["families.id"], name="fk_mixes_family_id_families"),
        sa.PrimaryKeyConstraint("id", name="pk_mixes"),
        sa.UniqueConstraint("name", name="uq_mixes_name"),
    )
    op.create_table(
        "projections",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("family_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "QUEUED",
                "TRAINING",
                "READY",
                "FAILED",
                name="projectionstate",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("documents_digest", sa.String(), nullable=False),
        sa.Column("training", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("inputs_digest", sa.String(), nullable=False),
        sa.Column("embedder_digest", sa.String(), nullable=False),
        sa.Column("manifest_digest", sa.String(), nullable=True),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        _created_at(),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["family_id"], ["families.id"], name="fk_projections_family_id_families"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_projections"),
        sa.UniqueConstraint(
            "family_id", "inputs_digest", name="uq_projections_family_id_inputs_digest"
        ),
        sa.UniqueConstraint("family_id", "number", name="uq_projections_family_id_number"),
    )
    op.create_table(
        "expert_versions",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("expert_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "UPLOADING", "READY", "RETIRED", name="versionstate", native_enum=False, length=32
            ),
            nullable=False,
        ),
        sa.Column("manifest_digest", sa.String(), nullable=False),
        sa.Column("documents_digest", sa.String(), nullable=False),
        _created_at(),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["expert_id"], ["experts.id"], name="fk_expert_versions_expert_id_experts"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_expert_versions"),
        sa.UniqueConstraint("expert_id", "number", name="uq_expert_versions_expert_id_number"),
    )
    op.create_table(
        "mix_versions",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("mix_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("recipe", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("recipe_digest", sa.String(), nullable=False),
        sa.Column("deploy", sa.Boolean(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "QUEUED",
                "ASSEMBLING",
                "FINETUNING",
                "GATING",
                "PUBLISHING",
                "SUCCEEDED",
                "FAILED",
                "CANCELLED",
                name="mixstate",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("assembled_digest", sa.String(), nullable=True),
        sa.Column("finetuned_digest", sa.String(), nullable=True),
        sa.Column("environment", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("gate_report_digest", sa.String(), nullable=True),
        sa.Column("artifact_id", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        _created_at(),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name="fk_mix_versions_artifact_id_artifacts"
        ),
        sa.ForeignKeyConstraint(["mix_id"], ["mixes.id"], name="fk_mix_versions_mix_id_mixes"),
        sa.PrimaryKeyConstraint("id", name="pk_mix_versions"),
        sa.UniqueConstraint("job_id", name="uq_mix_versions_job_id"),
        sa.UniqueConstraint("mix_id", "number", name="uq_mix_versions_mix_id_number"),
    )
    op.create_table(
        "domain_embeddings",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("expert_version_id", sa.Integer(), nullable=False),
        sa.Column("embedder", sa.String(), nullable=False),
        sa.Column("embedder_digest", sa.String(), nullable=False),
        sa.Column("num_documents", sa.Integer(), nullable=False),
        sa.Column("vector", Vector(), nullable=False),
        _created_at(),
        sa.ForeignKeyConstraint(
            ["expert_version_id"],
            ["expert_versions.id"],
            name="fk_domain_embeddings_expert_version_id_expert_versions",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_domain_embeddings"),
        sa.UniqueConstraint(
            "expert_version_id",
            "embedder_digest",
            name="uq_domain_embeddings_expert_version_id_embedder_digest",
        ),
    )


def downgrade() -> None:
    op.drop_table("domain_embeddings")
    op.drop_table("mix_versions")
    op.drop_table("expert_versions")
    op.drop_table("projections")
    op.drop_table("mixes")
    op.drop_table("experts")
    op.drop_index(
        "uq_deployments_model_ready",
        table_name="deployments",
        postgresql_where=sa.text("state = 'READY'"),
    )
    op.drop_table("deployments")
    op.drop_index("ix_job_events_job_id", table_name="job_events")
    op.drop_table("job_events")
    op.drop_table("idempotent_requests")
    op.drop_table("families")
    op.drop_table("artifacts")
    op.drop_table("api_keys")
