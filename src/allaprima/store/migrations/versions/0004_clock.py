"""Record the clock, so that a server notices that it was set."""

import sqlalchemy as sa
from alembic import op

revision = "0004_clock"
down_revision = "0003_webhook_reasons"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clock",
        sa.Column("boot_id", sa.String()),
        sa.Column("offset", sa.Float(), nullable=False),
        sa.Column("shift", sa.BigInteger(), nullable=False),
    )
