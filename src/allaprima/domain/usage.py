"""The usage of requests, by request and in sums."""

from dataclasses import dataclass

from allaprima.domain.jobs import JobState


@dataclass(frozen=True, slots=True)
class UsageRange:
    """An account or key and a time range: `start` <= time < `end`, in unix seconds."""

    account_id: str
    start: float
    end: float
    #: None: all keys of the account.
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class UsageBucket:
    """Usage of one model in a quarter of an hour or a part of it."""

    #: Start of the quarter of an hour, in unix seconds.
    start: int
    model: str
    succeeded: int
    failed: int
    #: Requests that were charged.
    charged: int
    credits: int


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """Usage of one key on one day (UTC) or a part of it."""

    #: Number of the day since 1 January 1970.
    day: int
    key_id: str
    #: Finished requests.
    requests: int
    #: Images that were generated and not withheld.
    images: int
    #: Seconds that the engine generated.
    compute_s: float


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """The usage of one finished request."""

    job_id: str
    key_id: str
    model: str
    state: JobState
    credits: int
    source: str
    client_request_id: str | None
    created_at: float
