"""Tenants, their keys and grants, and what was revoked."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    """Makes the tables of tenants."""
    op.create_table(
        "properties",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_properties"),
    )
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created", sa.String(20), nullable=False),
        sa.Column("suspended", sa.String(20)),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("parent", sa.String(64)),
        sa.Column("domains", sa.Text),
        sa.Column("expires", sa.String(20)),
        sa.Column("created", sa.String(20), nullable=False),
        sa.Column("mac", sa.String(64), nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name="fk_keys_tenant"),
        sa.ForeignKeyConstraint(["parent"], ["keys.id"], name="fk_keys_parent"),
    )
    op.create_index("ix_keys_tenant", "keys", ["tenant"])
    op.create_table(
        "grants",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_grants"),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], name="fk_grants_tenant"),
        sa.UniqueConstraint("id", name="uq_grants_id"),
    )
    op.create_index("ix_grants_tenant", "grants", ["tenant"])
    op.create_table(
        "revocations",
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("revoked", sa.String(20), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", name="pk_revocations"),
    )
