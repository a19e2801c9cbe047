"""Webhooks: where they go, and what is to be sent."""

from dataclasses import dataclass

from allaprima.domain.jobs import Job, StoredImage


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A URL that receives an account's webhooks."""

    id: str
    account_id: str
    url: str
    created_at: float
    #: None while webhooks are sent to it.
    disabled_at: float | None = None


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """A webhook that is due."""

    #: The same on every attempt.
    id: str
    account_id: str
    endpoint_id: str
    url: str
    job_id: str
    #: Such as `job.succeeded`.
    event: str
    created_at: float
    #: Attempts before this one.
    attempt: int
    #: Signing secrets: the account's own, and the previous one while it is valid.
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LinkedImage:
    """A stored image with the URL under which it can be fetched."""

    image: StoredImage
    url: str


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """An HTTP request to a webhook endpoint."""

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class JobEnd:
    """A job that ended, with its images, as a webhook reports it. job: None when it was removed since."""

    job: Job | None
    images: tuple[LinkedImage, ...]
