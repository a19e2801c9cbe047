"""Replace the index over all job states by a partial index of running jobs.

With the old index, SQLite could choose it for a query of queued jobs instead of their partial index.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002_index_running_jobs"
down_revision = "0001_initial"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_jobs_state_created_at", "jobs")
    op.create_index("ix_jobs_running", "jobs", ["queue", "turn"], sqlite_where=sa.text("state = 'running'"))
