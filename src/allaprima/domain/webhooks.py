"""Webhook endpoints, deliveries and messages."""

from dataclasses import dataclass

from allaprima.domain.jobs import Job, StoredImage


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A URL that receives an account's webhooks. Times are in unix seconds."""

    id: str
    account_id: str
    url: str
    created_at: float
    #: None while the endpoint is enabled.
    disabled_at: float | None = None
    #: Why it is disabled, in words for the client; None while it is enabled.
    disabled_reason: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """A due delivery of a webhook."""

    #: Id of the delivery, the same in every attempt.
    id: str
    account_id: str
    endpoint_id: str
    url: str
    job_id: str
    #: Type of the event, such as `job.succeeded`.
    event: str
    created_at: float
    #: Number of earlier attempts.
    attempt: int
    #: Signing secrets of the account: the current one, then the previous one while it is valid.
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinkedImage:
    """A stored image with its URL."""

    image: StoredImage
    url: str


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """An HTTP request to a webhook endpoint."""

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class JobEnd:
    """A finished job with its images, for a webhook. job: None if it was deleted since."""

    job: Job | None
    images: tuple[LinkedImage, ...]
