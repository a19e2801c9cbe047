"""terms, turns, leases and holds of jobs; limits of keys; balances, ledger, usage summed; idempotency; webhooks"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ZERO = sa.text("0")


def upgrade() -> None:
    with op.batch_alter_table("accounts") as accounts:
        accounts.add_column(sa.Column("balance", sa.BigInteger(), nullable=False, server_default=_ZERO))
        accounts.add_column(sa.Column("held", sa.BigInteger(), nullable=False, server_default=_ZERO))
        accounts.add_column(sa.Column("webhook_secret", sa.String()))
        accounts.add_column(sa.Column("old_webhook_secret", sa.String()))
        accounts.add_column(sa.Column("old_webhook_secret_until", sa.Float()))
    _alter_keys()
    _alter_jobs()
    _alter_usage()
    _create_tables()


def _alter_keys() -> None:
    with op.batch_alter_table("keys") as keys:
        keys.add_column(sa.Column("updated_at", sa.Float(), nullable=False, server_default=_ZERO))
        keys.add_column(sa.Column("is_management", sa.Integer(), nullable=False, server_default=_ZERO))
        keys.add_column(sa.Column("is_disabled", sa.Integer(), nullable=False, server_default=_ZERO))
        keys.add_column(sa.Column("scopes", sa.JSON()))
        keys.add_column(sa.Column("limit_retention", sa.String()))
        keys.add_column(sa.Column("limit_credits", sa.BigInteger()))
        keys.add_column(sa.Column("requests_per_minute", sa.Integer()))
        keys.add_column(sa.Column("safety_threshold", sa.Float()))
        keys.add_column(sa.Column("window_start", sa.Float(), nullable=False, server_default=_ZERO))
        keys.add_column(sa.Column("spent", sa.BigInteger(), nullable=False, server_default=_ZERO))
        keys.add_column(sa.Column("held", sa.BigInteger(), nullable=False, server_default=_ZERO))
        keys.create_index("ix_keys_account_id_created_at", ["account_id", "created_at"])


def _alter_jobs() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("terms", sa.JSON()))
        jobs.add_column(sa.Column("group_id", sa.String()))
        jobs.add_column(sa.Column("queue", sa.Integer(), nullable=False, server_default=_ZERO))
        jobs.add_column(sa.Column("priority", sa.Integer(), nullable=False, server_default=sa.text("1")))
        jobs.add_column(sa.Column("turn", sa.Float(), nullable=False, server_default=_ZERO))
        jobs.add_column(sa.Column("predicted_s", sa.Float(), nullable=False, server_default=_ZERO))
        jobs.add_column(sa.Column("start_by", sa.Float()))
        jobs.add_column(sa.Column("leased_until", sa.Float()))
        jobs.add_column(sa.Column("cancel_asked_at", sa.Float()))
        jobs.add_column(sa.Column("held", sa.BigInteger(), nullable=False, server_default=_ZERO))
        jobs.drop_index("ix_jobs_account_id_created_at")
    op.create_index("ix_jobs_account_id_id", "jobs", ["account_id", "id"])
    op.create_index("ix_jobs_account_id_state_id", "jobs", ["account_id", "state", "id"])
    op.create_index("ix_jobs_account_id_group_id_id", "jobs", ["account_id", "group_id", "id"])
    queued = sa.text("state = 'queued'")
    op.create_index("ix_jobs_order", "jobs", ["queue", "turn", "id", "predicted_s"], sqlite_where=queued)
    op.create_index("ix_jobs_urgency", "jobs", ["key_id", "queue", "priority", "id"], sqlite_where=queued)
    op.create_index("ix_jobs_order_of_key", "jobs", ["key_id", "queue", "turn", "id"], sqlite_where=queued)
    waits = sa.text("state = 'queued' AND start_by IS NOT NULL")
    op.create_index("ix_jobs_start_by", "jobs", ["start_by"], sqlite_where=waits)


def _alter_usage() -> None:
    with op.batch_alter_table("usage") as usage:
        # Usage outlives its job.
        usage.drop_constraint("fk_usage_job_id_jobs", type_="foreignkey")
        usage.alter_column("credits", type_=sa.BigInteger(), existing_type=sa.Integer(), existing_nullable=False)
        usage.add_column(sa.Column("slot", sa.BigInteger(), nullable=False, server_default=_ZERO))
        usage.add_column(sa.Column("state", sa.String(), nullable=False, server_default=sa.text("'succeeded'")))
        usage.add_column(sa.Column("origin", sa.String(), nullable=False, server_default=sa.text("'api'")))
        usage.add_column(sa.Column("client_request_id", sa.String()))
        usage.add_column(sa.Column("duration_s", sa.Float(), nullable=False, server_default=_ZERO))
        usage.drop_index("ix_usage_account_id_created_at")
    op.create_index("ix_usage_account_id_created_at_job_id", "usage", ["account_id", "created_at", "job_id"])
    op.create_index("ix_usage_account_id_key_id_created_at", "usage", ["account_id", "key_id", "created_at"])
    op.create_index("ix_usage_created_at", "usage", ["created_at"])
    by_state = ["account_id", "state", "created_at", "job_id"]
    op.create_index("ix_usage_account_id_state_created_at_job_id", "usage", by_state)
    op.execute("UPDATE usage SET slot = CAST(created_at / 900 AS INTEGER) * 900")


def account() -> sa.Column[str]:
    """The column of who owns a row."""
    return sa.Column("account_id", sa.String(), nullable=False)


def _create_tables() -> None:
    op.create_table(
        "usage_slots",
        account(),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("succeeded", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("charged", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("megapixels", sa.Float(), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_usage_slots_account_id_accounts"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_usage_slots_key_id_keys"),
        sa.PrimaryKeyConstraint("account_id", "slot", "key_id", "model", name="pk_usage_slots"),
    )
    op.execute(
        "INSERT INTO usage_slots (account_id, slot, key_id, model, succeeded, failed, charged, images, megapixels,"
        " credits) SELECT account_id, slot, key_id, model, COUNT(*), 0, SUM(images > 0), SUM(images), SUM(megapixels),"
        " SUM(credits) FROM usage GROUP BY account_id, slot, key_id, model"
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.String(), nullable=False),
        account(),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("direction", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String()),
        sa.Column("reference_id", sa.String()),
        sa.Column("images", sa.Integer()),
        sa.Column("note", sa.String()),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_ledger_account_id_accounts"),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.UniqueConstraint("reference_id", "type", name="uq_ledger_reference_id_type"),
    )
    op.create_index("ix_ledger_account_id_id", "ledger", ["account_id", "id"])
    op.create_index("ix_ledger_account_id_type_id", "ledger", ["account_id", "type", "id"])
    op.create_table(
        "idempotency",
        account(),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("made_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_idempotency_account_id_accounts"),
        sa.PrimaryKeyConstraint("account_id", "key", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.String(), nullable=False),
        account(),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("disabled_at", sa.Float()),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_webhook_endpoints_account_id_accounts"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
        sa.UniqueConstraint("account_id", "url", name="uq_webhook_endpoints_account_id_url"),
    )
    endpoint = "fk_deliveries_endpoint_id_webhook_endpoints"
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(), nullable=False),
        account(),
        sa.Column("endpoint_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False, server_default=_ZERO),
        sa.Column("next_at", sa.Float()),
        sa.Column("delivered_at", sa.Float()),
        sa.Column("last_error", sa.String()),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_deliveries_account_id_accounts"),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], name=endpoint),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_next_at", "deliveries", ["next_at"])
    op.create_index("ix_deliveries_job_id", "deliveries", ["job_id"])
    op.create_index("ix_deliveries_endpoint_id", "deliveries", ["endpoint_id"])
    op.create_table(
        "results",
        account(),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_results_account_id_accounts"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_results_job_id_jobs"),
        sa.PrimaryKeyConstraint("account_id", "fingerprint", name="pk_results"),
    )
    op.create_index("ix_results_job_id", "results", ["job_id"])


def downgrade() -> None:
    for table in ("results", "deliveries", "webhook_endpoints", "idempotency", "ledger", "usage_slots"):
        op.drop_table(table)
    # The version before kept usage only of jobs that it has, and only of those that succeeded.
    op.execute("DELETE FROM usage WHERE state <> 'succeeded' OR job_id NOT IN (SELECT id FROM jobs)")
    for index in (
        "account_id_created_at_job_id",
        "account_id_key_id_created_at",
        "account_id_state_created_at_job_id",
        "created_at",
    ):
        op.drop_index(f"ix_usage_{index}", "usage")
    with op.batch_alter_table("usage") as usage:
        for column in ("slot", "state", "origin", "client_request_id", "duration_s"):
            usage.drop_column(column)
        usage.alter_column("credits", type_=sa.Integer(), existing_type=sa.BigInteger(), existing_nullable=False)
        usage.create_foreign_key("fk_usage_job_id_jobs", "jobs", ["job_id"], ["id"])
        usage.create_index("ix_usage_account_id_created_at", ["account_id", "created_at"])
    for index in (
        "account_id_id",
        "account_id_state_id",
        "account_id_group_id_id",
        "order",
        "order_of_key",
        "start_by",
        "urgency",
    ):
        op.drop_index(f"ix_jobs_{index}", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        for column in ("terms", "group_id", "queue", "priority", "turn", "predicted_s", "start_by", "leased_until"):
            jobs.drop_column(column)
        jobs.drop_column("cancel_asked_at")
        jobs.drop_column("held")
        jobs.create_index("ix_jobs_account_id_created_at", ["account_id", "created_at"])
    op.drop_index("ix_keys_account_id_created_at", "keys")
    with op.batch_alter_table("keys") as keys:
        for column in ("updated_at", "is_management", "is_disabled", "scopes", "limit_retention", "limit_credits"):
            keys.drop_column(column)
        for column in ("requests_per_minute", "safety_threshold", "window_start", "spent", "held"):
            keys.drop_column(column)
    with op.batch_alter_table("accounts") as accounts:
        for column in ("balance", "held", "webhook_secret", "old_webhook_secret", "old_webhook_secret_until"):
            accounts.drop_column(column)
