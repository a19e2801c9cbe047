"""Claims of idempotency keys."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """A client's claim that all requests with the same idempotency key are repetitions of one request."""

    key: str
    #: Hash of the kind of request and its body.
    fingerprint: str
