"""The tables, with the job's state machine written beside its column. Times are unix seconds."""

from enum import StrEnum

from sqlalchemy import JSON, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, text


class JobState(StrEnum):
    """Where a job stands.

    queued -> running (leased), queued -> failed (its request can't be read), running -> queued (the server stopped or
    died), running -> succeeded | failed | cancelled. The last three are final.
    """

    #: Accepted and waiting.
    QUEUED = "queued"
    #: Handed to the engine.
    RUNNING = "running"
    #: Painted; its images and its usage are in the store.
    SUCCEEDED = "succeeded"
    #: Ended without a picture; `error_code` and `error_message` say why.
    FAILED = "failed"
    #: Stopped on request.
    CANCELLED = "cancelled"


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
    Column("result", JSON),
    #: How often the server died, rather than stopped, while the job was painted.
    Column("crashes", Integer, nullable=False, server_default=text("0")),
    Index(None, "state", "created_at"),
    Index(None, "account_id", "created_at"),
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
    #: The job's id: one row per request, so nothing can be counted twice.
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("key_id", ForeignKey("keys.id"), nullable=False),
    Column("model", String, nullable=False),
    #: Images that are charged: painted and not withheld.
    Column("images", Integer, nullable=False),
    Column("megapixels", Float, nullable=False),
    Column("credits", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Index(None, "account_id", "created_at"),
)
