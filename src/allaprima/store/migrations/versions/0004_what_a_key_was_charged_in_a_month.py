"""what a key was charged in a month, and which deliveries are over"""

import datetime as dt

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("month_start", sa.Float(), server_default=sa.text("0"), nullable=False))
    op.add_column("keys", sa.Column("month_spent", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    today = dt.datetime.now(dt.UTC)
    month = dt.datetime(today.year, today.month, 1, tzinfo=dt.UTC).timestamp()
    op.get_bind().execute(
        sa.text(
            "UPDATE keys SET month_start = :month, month_spent = (SELECT coalesce(sum(credits), 0) FROM usage_slots"
            " WHERE usage_slots.account_id = keys.account_id AND usage_slots.key_id = keys.id"
            " AND usage_slots.slot >= :month)"
        ),
        {"month": month},
    )
    op.create_index("ix_deliveries_over", "deliveries", ["created_at"], sqlite_where=sa.text("next_at IS NULL"))


def downgrade() -> None:
    op.drop_index("ix_deliveries_over", "deliveries")
    op.drop_column("keys", "month_spent")
    op.drop_column("keys", "month_start")
