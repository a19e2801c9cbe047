"""The erasure of an account's prompts, images and logs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Erased:
    """Numbers of what an erasure removed and kept."""

    keys_disabled: int
    jobs: int
    images: int
    image_bytes: int
    #: Rows of the log of requests.
    logged_requests: int
    idempotency_records: int
    webhook_endpoints: int
    #: Kept for bookkeeping.
    ledger_entries: int
    #: Sums of usage by 15 minutes, key and model, kept for bookkeeping.
    usage_sums: int
