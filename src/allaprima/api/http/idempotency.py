"""`Idempotency-Key`: a request takes effect once; repetitions with the same key receive the same result.

Source: draft-ietf-httpapi-idempotency-key-header-07 (409 for a request in progress, 422 for a different request), with
Stripe's limits (255 characters, 24 hours, no record of a request that failed validation). Keys belong to an account.
"""

import hashlib
import json
from typing import Annotated

from fastapi import Header

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import FieldProblem, InvalidRequest

NAME = "Idempotency-Key"
MAX_LENGTH = 255

ClaimHeader = Annotated[
    str | None,
    Header(alias=NAME, description="For 24 hours, a repeated request with the same key returns the same result."),
]


def claim_of(key: str | None, kind: str, content: object) -> IdempotencyClaim | None:
    """Return the idempotency claim of a request, or None without a key. Raises `InvalidRequest` for an invalid key.

    kind: the kind of resource that the route creates, the same for all its paths. content: the body, as JSON.
    """
    if key is None:
        return None
    if not (0 < len(key) <= MAX_LENGTH and key.isascii() and key.isprintable()):
        problem = f"must have from 1 to {MAX_LENGTH} printable ASCII characters"
        raise InvalidRequest(FieldProblem(NAME, problem))
    # The order of members makes no difference.
    digest = json.dumps(content, sort_keys=True, separators=(",", ":"))
    fingerprint = hashlib.sha256(f"{kind}\n{digest}".encode("utf-8", "surrogatepass")).hexdigest()
    return IdempotencyClaim(key, fingerprint)
