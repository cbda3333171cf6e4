"""The tables of a store, as its migrations leave them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
INSTANT, ID, DIGEST = String(20), String(64), String(64)
"""An instant as text (2026-11-30T12:00:00Z), a name, and a SHA-256 in hexadecimal."""
# SQLite numbers rows itself by an INTEGER alone.
NUMBER = Integer().with_variant(BigInteger(), "postgresql")

METADATA = MetaData(naming_convention=NAMES)

PROPERTIES = Table(
    "properties",
    METADATA,
    Column("name", ID, primary_key=True),
    Column("value", Text, nullable=False),
)
"""What is true of the whole store, such as a check of its pepper."""

TENANTS = Table(
    "tenants",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created", INSTANT, nullable=False),
    Column("suspended", INSTANT),
)

KEYS = Table(
    "keys",
    METADATA,
    Column("id", ID, primary_key=True),
    Column("tenant", ID, ForeignKey("tenants.id"), nullable=False),
    Column("parent", ID, ForeignKey("keys.id")),
    Column("domains", Text),
    Column("expires", INSTANT),
    Column("created", INSTANT, nullable=False),
    Column("mac", DIGEST, nullable=False),
    Column("seal", DIGEST, nullable=False),
    Index("ix_keys_tenant", "tenant"),
)
"""Keys of tenants: ``mac`` is of the secret, and ``seal`` of all other cells, under the pepper."""

GRANTS = Table(
    "grants",
    METADATA,
    Column("digest", DIGEST, primary_key=True),
    Column("id", ID, nullable=False),
    Column("tenant", ID, ForeignKey("tenants.id"), nullable=False),
    Column("envelope", Text, nullable=False),
    UniqueConstraint("id"),
    Index("ix_grants_tenant", "tenant"),
)
"""Grants as they were signed; the cells beside the envelope only find it."""

REVOCATIONS = Table(
    "revocations",
    METADATA,
    Column("kind", ID, primary_key=True),
    Column("subject", ID, primary_key=True),
    Column("revoked", INSTANT, nullable=False),
    Column("who", Text, nullable=False),
    Column("reason", Text, nullable=False),
)
"""What of grants, keys and certificates was revoked, since when, by whom and why."""

ENTRIES = Table(
    "ledger_entries",
    METADATA,
    Column("sequence", NUMBER, primary_key=True, autoincrement=False),
    Column("hash", DIGEST, nullable=False),
    Column("body", Text, nullable=False),
)

HEADS = Table(
    "ledger_heads",
    METADATA,
    Column("digest", DIGEST, primary_key=True),
    Column("sequence", NUMBER, nullable=False),
    Column("envelope", Text, nullable=False),
)
