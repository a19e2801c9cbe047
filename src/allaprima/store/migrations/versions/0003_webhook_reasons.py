"""Store why a webhook endpoint is disabled."""

import sqlalchemy as sa
from alembic import op

revision = "0003_webhook_reasons"
down_revision = "0002_index_running_jobs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("webhook_endpoints", sa.Column("disabled_reason", sa.String()))
