"""jobs by the key that submitted them"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_jobs_key_id_id", "jobs", ["key_id", "id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_key_id_id", "jobs")
