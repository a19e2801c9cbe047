"""Run the migrations on the connection that `sqlite.migrate` passes in the configuration."""

from alembic import context

from allaprima.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
