"""Runs the migrations on the connection that is handed over, within its transaction."""

from alembic import context

from palette.gateway.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
