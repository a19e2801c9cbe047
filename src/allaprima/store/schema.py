"""The tables. Times are unix seconds; amounts are credits, 2,000,000 to the US dollar; states are `JobState` values."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)

from allaprima.store.dialect import Text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _where(condition: str) -> dict[str, Any]:
    """Return the arguments of an `Index` that has only the rows of a condition."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    #: The sum of the account's ledger.
    Column("balance", BigInteger, nullable=False, default=0),
    #: Part of the balance that is reserved for unfinished jobs.
    Column("held", BigInteger, nullable=False, default=0),
    #: The secret that signs the account's webhooks: `whsec_` and base64.
    Column("webhook_secret", Text),
    #: The previous secret, which also signs until `old_webhook_secret_until`.
    Column("old_webhook_secret", Text),
    Column("old_webhook_secret_until", Float),
    #: The sum of `size_bytes` of the account's images.
    Column("image_bytes", BigInteger, nullable=False, server_default=text("0")),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("name", Text),
    #: The 8 characters after `ap_`; identifies the key without revealing it.
    Column("prefix", Text, nullable=False, unique=True),
    #: SHA-256 of the whole key, hex. The key itself is stored nowhere.
    Column("hash", Text, nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("updated_at", Float, nullable=False, default=0),
    #: A management key manages keys and reads usage and charges; it can't generate images.
    Column("is_management", Integer, nullable=False, default=0),
    Column("is_disabled", Integer, nullable=False, default=0),
    #: A list of scopes; null: all scopes.
    Column("scopes", JSON(none_as_null=True)),
    #: The period of `limit_credits`, a `LimitPeriod`; null: no limit.
    Column("limit_period", Text),
    Column("limit_credits", BigInteger),
    #: Most generation requests per minute; null: the server's limit.
    Column("requests_per_minute", Integer),
    #: Safety score, 0 to 1, from which this key's images are withheld; null: the server's threshold.
    Column("safety_threshold", Float),
    #: Start of the limit period to which `spent` belongs.
    Column("period_start", Float, nullable=False, default=0),
    #: Credits charged in that period.
    Column("spent", BigInteger, nullable=False, default=0),
    #: Credits reserved for the key's unfinished jobs.
    Column("held", BigInteger, nullable=False, default=0),
    #: Start of the last UTC month with a charge, and the credits charged in that month.
    Column("month_start", Float, nullable=False, default=0),
    Column("month_spent", BigInteger, nullable=False, default=0),
    Index(None, "account_id", "created_at"),
)

jobs = Table(
    "jobs",
    metadata,
    #: UUIDv7, also the request's `x-inference-id`.
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("key_id", ForeignKey("api_keys.id"), nullable=False),
    Column("state", Text, nullable=False),
    #: `GenerationRequest` as JSON.
    Column("request", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    #: Number of leases so far. It is also the fencing token: only the current attempt can finish the job.
    Column("attempt", Integer, nullable=False, default=0),
    Column("error_code", Text),
    Column("error_message", Text),
    #: `JobResult` as JSON.
    Column("result", JSON(none_as_null=True)),
    #: Number of times that the server crashed while it generated the job.
    Column("crashes", Integer, nullable=False),
    #: `JobOptions` as JSON.
    Column("options", JSON, nullable=False),
    Column("group_id", Text),
    #: 0: the ordinary queue. 1: the low queue, which runs only while the ordinary one is empty.
    Column("queue", Integer, nullable=False),
    #: Rank within one key: lower values run first.
    Column("priority", Integer, nullable=False),
    #: The job's turn in virtual time; see `fair_queue`.
    Column("turn", Float, nullable=False),
    #: Estimated compute seconds at admission.
    Column("predicted_s", Float, nullable=False),
    #: Start deadline; null: none.
    Column("start_by", Float),
    #: When a client asked to cancel the job.
    Column("cancel_asked_at", Float),
    #: The most credits that the job can cost, reserved until the job ends.
    Column("held", BigInteger, nullable=False, default=0),
    #: Id of the worker that runs the job, or ran it last.
    Column("worker_id", Text),
    #: Id of the worker that alone may run the job, since its client waits there for images that are not stored; null:
    #: any worker.
    Column("waits_at", Text),
    Index(None, "account_id", "id"),
    Index(None, "account_id", "state", "id"),
    Index(None, "account_id", "group_id", "id"),
    Index(None, "key_id", "id"),
    # Partial indexes contain only queued or running jobs, so their size does not grow with the number of finished jobs.
    # No other index begins with the state: SQLite's choice between two that fit depends on their order of creation.
    Index("ix_jobs_order", "queue", "turn", "id", "predicted_s", **_where("state = 'queued'")),
    Index("ix_jobs_urgency", "key_id", "queue", "priority", "id", **_where("state = 'queued'")),
    Index("ix_jobs_order_of_key", "key_id", "queue", "turn", "id", **_where("state = 'queued'")),
    Index("ix_jobs_running", "queue", "turn", **_where("state = 'running'")),
    Index("ix_jobs_start_by", "start_by", **_where("state = 'queued' AND start_by IS NOT NULL")),
    Index("ix_jobs_waits_at", "waits_at", "id", **_where("state = 'queued' AND waits_at IS NOT NULL")),
)

images = Table(
    "images",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    #: Index within the job, from 0.
    Column("position", Integer, nullable=False),
    Column("object_name", Text, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    #: Decimal text: a seed can be 2**63 - 1, which JSON readers with float64 numbers would round.
    Column("seed", Text, nullable=False),
    Column("nsfw_score", Float),
    Column("is_flagged", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    #: When the image expires, unless it is starred.
    Column("expires_at", Float, nullable=False),
    #: Account and key of the job.
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("key_id", ForeignKey("api_keys.id"), nullable=False),
    #: The job's prompt as `image_rows.searchable` returns it.
    Column("search_text", Text, nullable=False),
    Column("is_starred", Integer, nullable=False, server_default=text("0")),
    Index(None, "job_id"),
    Index(None, "expires_at"),
    Index(None, "account_id", "id"),
    Index(None, "key_id", "id"),
    Index("ix_images_starred", "account_id", "id", **_where("is_starred = 1")),
)

usage = Table(
    "usage",
    metadata,
    #: The job's id. One row per job, so no job is counted twice. The row remains when the job is removed.
    Column("job_id", Text, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("key_id", ForeignKey("api_keys.id"), nullable=False),
    #: The model name in the request; the job's result names the model that generated the images.
    Column("model", Text, nullable=False),
    #: Number of charged images: generated and not withheld.
    Column("images", Integer, nullable=False),
    Column("megapixels", Float, nullable=False),
    Column("credits", BigInteger, nullable=False),
    #: When the request ended.
    Column("created_at", Float, nullable=False),
    #: Start of the 15-minute bucket in which the request ended, as in `usage_buckets`.
    Column("bucket", BigInteger, nullable=False),
    #: A final `JobState`.
    Column("state", Text, nullable=False),
    #: `api` or `playground`.
    Column("source", Text, nullable=False),
    Column("client_request_id", Text),
    #: Seconds from acceptance to end.
    Column("duration_s", Float, nullable=False),
    #: Seconds that the engine generated.
    Column("compute_s", Float, nullable=False, server_default=text("0")),
    Index(None, "account_id", "created_at", "job_id"),
    Index(None, "account_id", "key_id", "created_at"),
    Index(None, "account_id", "state", "created_at", "job_id"),
    Index(None, "created_at"),
)

#: Usage summed by 15 minutes: a day in every time zone is a whole number of such buckets.
usage_buckets = Table(
    "usage_buckets",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    #: Start of the bucket, unix seconds, a multiple of 900.
    Column("start", BigInteger, primary_key=True),
    Column("key_id", ForeignKey("api_keys.id"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("succeeded", Integer, nullable=False),
    #: Requests that failed or were cancelled.
    Column("failed", Integer, nullable=False),
    #: Requests with at least one charged image.
    Column("charged", Integer, nullable=False),
    Column("images", Integer, nullable=False),
    Column("megapixels", Float, nullable=False),
    Column("credits", BigInteger, nullable=False),
    #: Seconds that the engine generated.
    Column("compute_s", Float, nullable=False, server_default=text("0")),
)

ledger = Table(
    "ledger",
    metadata,
    #: UUIDv7: sorts by time.
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("direction", Text, nullable=False),
    Column("type", Text, nullable=False),
    #: At least 0: `direction` has the sign.
    Column("credits", BigInteger, nullable=False),
    Column("model", Text),
    #: The request's `x-inference-id`.
    Column("reference_id", Text),
    Column("images", Integer),
    Column("note", Text),
    # A job is charged at most once.
    UniqueConstraint("reference_id", "type"),
    Index(None, "account_id", "id"),
    Index(None, "account_id", "type", "id"),
)

idempotency_records = Table(
    "idempotency_records",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    #: The `Idempotency-Key` header of the request.
    Column("key", Text, primary_key=True),
    #: Hash of path and body. A request with the same key and another fingerprint is refused.
    Column("fingerprint", Text, nullable=False),
    #: Id of the job or the key that the request created.
    Column("resource_id", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Index(None, "created_at"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    #: When the endpoint was disabled: it answered 410, or its URL was refused. Null while webhooks are sent to it.
    Column("disabled_at", Float),
    #: Why it was disabled, in words for the client.
    Column("disabled_reason", Text),
    UniqueConstraint("account_id", "url"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    #: Also the header `webhook-id`, which is the same on every attempt.
    Column("id", Text, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("endpoint_id", ForeignKey("webhook_endpoints.id"), nullable=False),
    Column("job_id", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    #: Number of attempts so far.
    Column("attempt", Integer, nullable=False, default=0),
    #: Time of the next attempt; null when there is none.
    Column("next_at", Float),
    Column("delivered_at", Float),
    #: Error of the last attempt.
    Column("last_error", Text),
    Index(None, "next_at"),
    Index(None, "job_id"),
    Index(None, "endpoint_id"),
    Index("ix_webhook_deliveries_done", "created_at", **_where("next_at IS NULL")),
)

#: One row: the clock of the server that ran last.
clock = Table(
    "clock",
    metadata,
    #: Id of the machine's start at which its monotonic clock was zero; null: unknown.
    Column("boot_id", Text),
    #: The unix time at the zero of the monotonic clock.
    Column("offset", Float, nullable=False),
    #: Sum of all changes of the clock while servers ran, in seconds.
    Column("shift", BigInteger, nullable=False),
)

#: The processes that lease jobs. A row is removed when its worker stops or is dead.
workers = Table(
    "workers",
    metadata,
    #: UUIDv7 of one incarnation: a process that was taken for dead registers with a new id.
    Column("id", Text, primary_key=True),
    #: Host name and process id, for people.
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    #: How many jobs the worker generates at a time.
    Column("concurrency", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    #: End of the lease by the database's clock, which heartbeats renew; null in SQLite, where the lock of the data
    #: folder proves that all other workers are dead.
    Column("leased_until", Float),
    # Heartbeats update rows, which stay in their page if it has room.
    postgresql_with={"fillfactor": 50},
)

#: One row, with the id 1: what all processes of a shared database need to know.
installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    #: 32 bytes that sign links. SQLite has none: the data folder has the secret.
    Column("secret", LargeBinary, nullable=False),
)

#: The result cache: the job that generated the images of a request.
cached_results = Table(
    "cached_results",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    #: Hash of the request, the revision, the precision and the kernels.
    Column("fingerprint", Text, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Index(None, "job_id"),
)
