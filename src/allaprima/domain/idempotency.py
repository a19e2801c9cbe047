"""Idempotency keys."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """A client's statement that a request repeats every other one with the same idempotency key."""

    key: str
    #: Hash of path and body.
    fingerprint: str
