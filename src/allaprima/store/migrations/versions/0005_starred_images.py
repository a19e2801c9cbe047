"""Star images, list them by account and key, count the bytes of images and the seconds of generation."""

import json
import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0005_starred_images"
down_revision = "0004_clock"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("usage", "usage_buckets"):
        op.add_column(table, sa.Column("compute_s", sa.Float(), nullable=False, server_default=sa.text("0")))
    op.add_column("accounts", sa.Column("image_bytes", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    for name in ("account_id", "key_id", "search_text"):
        op.add_column("images", sa.Column(name, sa.String()))
    op.add_column("images", sa.Column("is_starred", sa.Integer(), nullable=False, server_default=sa.text("0")))
    _fill()
    with op.batch_alter_table("images", recreate="always") as batch:
        for name in ("account_id", "key_id", "search_text"):
            batch.alter_column(name, existing_type=sa.String(), nullable=False)
        batch.create_foreign_key("fk_images_account_id_accounts", "accounts", ["account_id"], ["id"])
        batch.create_foreign_key("fk_images_key_id_api_keys", "api_keys", ["key_id"], ["id"])
    op.create_index("ix_images_account_id_id", "images", ["account_id", "id"])
    op.create_index("ix_images_key_id_id", "images", ["key_id", "id"])
    op.create_index("ix_images_starred", "images", ["account_id", "id"], sqlite_where=sa.text("is_starred = 1"))


def _fill() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql(
        "UPDATE images SET account_id = jobs.account_id, key_id = jobs.key_id, search_text = '' "
        "FROM jobs WHERE jobs.id = images.job_id"
    )
    wanted = "SELECT id, request FROM jobs WHERE id IN (SELECT job_id FROM images)"
    texts = [{"job": job_id, "text": _searchable(request)} for job_id, request in connection.exec_driver_sql(wanted)]
    if texts:
        connection.execute(sa.text("UPDATE images SET search_text = :text WHERE job_id = :job"), texts)
    connection.exec_driver_sql(
        "UPDATE accounts SET image_bytes = "
        "(SELECT coalesce(sum(size_bytes), 0) FROM images WHERE images.account_id = accounts.id)"
    )


def _searchable(request: str) -> str:
    """Return the prompt of a stored request as it is searched; empty for a damaged row."""
    try:
        return unicodedata.normalize("NFKC", json.loads(request)["prompt"]).casefold()
    except (LookupError, TypeError, ValueError):
        return ""
