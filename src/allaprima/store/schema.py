"""The tables, with the job's state machine written beside its column. Times are unix seconds, money is credits:
2,000,000 make one US dollar.
"""

from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)


class JobState(StrEnum):
    """Where a job stands.

    queued -> running (leased), queued -> failed (its time to start is over, or its request can't be read), queued ->
    succeeded (the result cache had it), running -> queued (the server stopped or died), running -> succeeded | failed,
    queued or running -> cancelled. Succeeded, failed and cancelled are final.
    """

    #: Accepted and waiting.
    QUEUED = "queued"
    #: Handed to the engine.
    RUNNING = "running"
    #: Painted; its images, its usage and its charge are in the store.
    SUCCEEDED = "succeeded"
    #: Ended without a picture; `error_code` and `error_message` say why.
    FAILED = "failed"
    #: Stopped on request.
    CANCELLED = "cancelled"


UNFINISHED = (JobState.QUEUED, JobState.RUNNING)


class Direction(StrEnum):
    """Which way a ledger's row moves the balance."""

    TOPUP = "TOPUP"
    CHARGE = "CHARGE"


class EntryType(StrEnum):
    """Why. The platform's names; ours are paid in by the operator and charged by use."""

    PAYMENT = "PAYMENT"
    BONUS = "BONUS"
    REFUND = "REFUND"
    ADJUSTMENT = "ADJUSTMENT"
    MODEL_USAGE = "MODEL_USAGE"
    CREDITS_EXPIRED = "CREDITS_EXPIRED"
    INIT = "INIT"


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("created_at", Float, nullable=False),
    #: The sum of the account's ledger.
    Column("balance", BigInteger, nullable=False, server_default=text("0")),
    #: The most that its unfinished jobs can cost: part of the balance, not to be spent a second time.
    Column("held", BigInteger, nullable=False, server_default=text("0")),
    #: Signs its webhooks: `whsec_` and base64.
    Column("webhook_secret", String),
    #: The one before, which signs too until its time is over.
    Column("old_webhook_secret", String),
    Column("old_webhook_secret_until", Float),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("name", String),
    #: The 8 characters after `ap_`; names the key without giving it away.
    Column("prefix", String, nullable=False, unique=True),
    #: SHA-256 of the whole key, hex. The key itself is stored nowhere.
    Column("hash", String, nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    Column("updated_at", Float, nullable=False, server_default=text("0")),
    #: A management key works on keys and reads the bill; it paints nothing.
    Column("is_management", Integer, nullable=False, server_default=text("0")),
    Column("is_disabled", Integer, nullable=False, server_default=text("0")),
    #: A list of scopes; null: all of them.
    Column("scopes", JSON(none_as_null=True)),
    #: How long `limit_credits` is for (`windows.Retention`); null: no limit.
    Column("limit_retention", String),
    Column("limit_credits", BigInteger),
    #: Requests for pictures in a minute; null: the server's limit.
    Column("requests_per_minute", Integer),
    #: The score from which this key's pictures are withheld; null: the server's.
    Column("safety_threshold", Float),
    #: Start of the window that `spent` counts.
    Column("window_start", Float, nullable=False, server_default=text("0")),
    #: Credits charged in that window.
    Column("spent", BigInteger, nullable=False, server_default=text("0")),
    #: The most that its unfinished jobs can cost.
    Column("held", BigInteger, nullable=False, server_default=text("0")),
    #: Start of a month of UTC, and the credits charged in it: of this month, if there were any.
    Column("month_start", Float, nullable=False, server_default=text("0")),
    Column("month_spent", BigInteger, nullable=False, server_default=text("0")),
    Index(None, "account_id", "created_at"),
)

jobs = Table(
    "jobs",
    metadata,
    #: UUIDv7, also the request's `x-inference-id`.
    Column("id", String, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("key_id", ForeignKey("keys.id"), nullable=False),
    Column("state", String, nullable=False),
    #: `ImageRequest.to_json()`.
    Column("request", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    #: How often the job was leased; also the fencing token: a result is taken from the current attempt only.
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("error_code", String),
    Column("error_message", String),
    #: Model, revision, timings and warnings of the painting.
    Column("result", JSON(none_as_null=True)),
    #: How often the server died, rather than stopped, while the job was painted.
    Column("crashes", Integer, nullable=False, server_default=text("0")),
    #: `Terms.to_json()`: how the job is to be treated. Null for jobs of earlier versions.
    Column("terms", JSON(none_as_null=True)),
    Column("group_id", String),
    #: 0: the ordinary queue. 1: the one that runs only while the ordinary one is empty.
    Column("queue", Integer, nullable=False, server_default=text("0")),
    #: Order within one key: lower first.
    Column("priority", Integer, nullable=False, server_default=text("1")),
    #: The job's turn in virtual time; see `queue.Queue`.
    Column("turn", Float, nullable=False, server_default=text("0")),
    #: Seconds that it was thought to take when it was accepted.
    Column("predicted_s", Float, nullable=False, server_default=text("0")),
    #: When it must have started, or fail.
    Column("start_by", Float),
    #: Until when the engine that leased it is believed to live.
    Column("leased_until", Float),
    #: When somebody asked for it to be stopped.
    Column("cancel_asked_at", Float),
    #: The most that it can cost, held back from account and key until it ends.
    Column("held", BigInteger, nullable=False, server_default=text("0")),
    Index(None, "state", "created_at"),
    Index(None, "account_id", "id"),
    Index(None, "account_id", "state", "id"),
    Index(None, "account_id", "group_id", "id"),
    Index(None, "key_id", "id"),
    # Only what waits is in these, however many jobs there ever were.
    Index("ix_jobs_order", "queue", "turn", "id", "predicted_s", sqlite_where=text("state = 'queued'")),
    Index("ix_jobs_urgency", "key_id", "queue", "priority", "id", sqlite_where=text("state = 'queued'")),
    Index("ix_jobs_order_of_key", "key_id", "queue", "turn", "id", sqlite_where=text("state = 'queued'")),
    Index("ix_jobs_start_by", "start_by", sqlite_where=text("state = 'queued' AND start_by IS NOT NULL")),
)

images = Table(
    "images",
    metadata,
    Column("id", String, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    #: Place within the job, from 0.
    Column("place", Integer, nullable=False),
    Column("object_name", String, nullable=False),
    Column("content_type", String, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("sha256", String, nullable=False),
    #: Text: seeds go up to 2**63 - 1, and JSON readers of this table should not round them.
    Column("seed", String, nullable=False),
    Column("nsfw_score", Float),
    Column("is_flagged", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index(None, "job_id"),
    Index(None, "expires_at"),
)

usage = Table(
    "usage",
    metadata,
    #: The job's id: one row per request, so nothing can be counted twice. It outlives the job.
    Column("job_id", String, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("key_id", ForeignKey("keys.id"), nullable=False),
    #: The name that was asked for; what painted is in the job's result.
    Column("model", String, nullable=False),
    #: Images that are charged: painted and not withheld.
    Column("images", Integer, nullable=False),
    Column("megapixels", Float, nullable=False),
    Column("credits", BigInteger, nullable=False),
    #: When the request ended.
    Column("created_at", Float, nullable=False),
    #: The quarter of an hour in which that was, as in `usage_slots`.
    Column("slot", BigInteger, nullable=False, server_default=text("0")),
    #: `JobState`, a final one.
    Column("state", String, nullable=False, server_default=text("'succeeded'")),
    #: `api` or `playground`.
    Column("origin", String, nullable=False, server_default=text("'api'")),
    Column("client_request_id", String),
    #: From acceptance to end.
    Column("duration_s", Float, nullable=False, server_default=text("0")),
    Index(None, "account_id", "created_at", "job_id"),
    Index(None, "account_id", "key_id", "created_at"),
    Index(None, "account_id", "state", "created_at", "job_id"),
    Index(None, "created_at"),
)

#: Usage summed by quarter of an hour: fine enough that a day of any time zone is a whole number of them.
usage_slots = Table(
    "usage_slots",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    #: Start of the quarter, unix seconds.
    Column("slot", BigInteger, primary_key=True),
    Column("key_id", ForeignKey("keys.id"), primary_key=True),
    Column("model", String, primary_key=True),
    Column("succeeded", Integer, nullable=False),
    #: Failed or cancelled.
    Column("failed", Integer, nullable=False),
    #: Succeeded with a picture that was not withheld.
    Column("charged", Integer, nullable=False),
    Column("images", Integer, nullable=False),
    Column("megapixels", Float, nullable=False),
    Column("credits", BigInteger, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    #: UUIDv7: sorts by time.
    Column("id", String, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("direction", String, nullable=False),
    Column("type", String, nullable=False),
    #: Never negative: `direction` carries the sign.
    Column("credits", BigInteger, nullable=False),
    Column("model", String),
    #: The request's `x-inference-id`.
    Column("reference_id", String),
    Column("images", Integer),
    Column("note", String),
    # However often a result is brought, it is charged once.
    UniqueConstraint("reference_id", "type"),
    Index(None, "account_id", "id"),
    Index(None, "account_id", "type", "id"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    #: The client's own words.
    Column("key", String, primary_key=True),
    #: Hash of path and body: the same key for another request is refused.
    Column("fingerprint", String, nullable=False),
    #: What the request made: a job's or a key's id.
    Column("made_id", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Index(None, "created_at"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("url", String, nullable=False),
    Column("created_at", Float, nullable=False),
    #: When it answered 410, or never did for as long as we try.
    Column("disabled_at", Float),
    UniqueConstraint("account_id", "url"),
)

deliveries = Table(
    "deliveries",
    metadata,
    #: Also the header `webhook-id`: the same on every try.
    Column("id", String, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("endpoint_id", ForeignKey("webhook_endpoints.id"), nullable=False),
    Column("job_id", String, nullable=False),
    Column("event", String, nullable=False),
    Column("created_at", Float, nullable=False),
    #: Tries so far.
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    #: When to try next; null when nothing is left to do.
    Column("next_at", Float),
    Column("delivered_at", Float),
    #: What the last try came to.
    Column("last_error", String),
    Index(None, "next_at"),
    Index(None, "job_id"),
    Index(None, "endpoint_id"),
    Index("ix_deliveries_over", "created_at", sqlite_where=text("next_at IS NULL")),
)

#: Where the result of a request lies that was painted before.
results = Table(
    "results",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True),
    #: Hash of the request, the revision, the precision and the kernels.
    Column("fingerprint", String, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Index(None, "job_id"),
)
