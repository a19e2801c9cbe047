"""Register the processes that run jobs, since a lease belongs to a worker; keep the secret of a shared database."""

import sqlalchemy as sa
from alembic import op

from allaprima.store.dialect import Text

revision = "0006_workers"
down_revision = "0005_starred_images"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("id", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("version", Text, nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("leased_until", sa.Float()),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
    )
    op.add_column("jobs", sa.Column("worker_id", Text))
    op.add_column("jobs", sa.Column("waits_at", Text))
    op.drop_column("jobs", "leased_until")
    # Their clients waited at a server that has ended. Only SQLite databases are older than this revision.
    op.execute(
        "UPDATE jobs SET waits_at = '' WHERE state = 'queued' "
        "AND CASE WHEN json_valid(options) THEN json_extract(options, '$.store') = 0 END"
    )
    op.create_index(
        "ix_jobs_waits_at",
        "jobs",
        ["waits_at", "id"],
        sqlite_where=sa.text("state = 'queued' AND waits_at IS NOT NULL"),
        postgresql_where=sa.text("state = 'queued' AND waits_at IS NOT NULL"),
    )
