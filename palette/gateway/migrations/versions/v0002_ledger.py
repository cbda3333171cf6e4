"""The ledger and its signed heads; a ledger has its first entry from the beginning."""

from datetime import UTC, datetime
from uuid import uuid4

import sqlalchemy as sa
from alembic import op

from palette.gateway.ledger import GENESIS, NOTHING, Event, entry

revision, down_revision = "0002", "0001"

NUMBER = sa.Integer().with_variant(sa.BigInteger(), "postgresql")


def upgrade() -> None:
    """Makes the tables of the ledger, and the first entry, whose hash is a name of this ledger alone."""
    entries = op.create_table(
        "ledger_entries",
        sa.Column("sequence", NUMBER, nullable=False, autoincrement=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_ledger_entries"),
    )
    op.create_table(
        "ledger_heads",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("sequence", NUMBER, nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_ledger_heads"),
    )
    genesis = Event(GENESIS, remarks={"ledger": uuid4().hex})
    first = entry(1, NOTHING, datetime.now(UTC), genesis.to_json())
    op.bulk_insert(entries, [{"sequence": 1, "hash": first.hash, "body": first.body}])
