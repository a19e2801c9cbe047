"""`Idempotency-Key`: of equal requests with one key, one takes effect and the others are answered like it.

Source: draft-ietf-httpapi-idempotency-key-header-07 (409 in flight, 422 for another request), with Stripe's limits (255
characters, 24 hours, nothing recorded when validation failed). Keys belong to an account.
"""

import hashlib
from typing import Annotated

from fastapi import Header

from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import FieldProblem, InvalidRequest

NAME = "Idempotency-Key"
MAX_LENGTH = 255

ClaimHeader = Annotated[
    str | None,
    Header(alias=NAME, description="The same key with the same request gives the same answer for 24 hours."),
]


def claim_of(key: str | None, kind: str, digest: str) -> IdempotencyClaim | None:
    """Return the claim of a request, if it makes one. Raises `InvalidRequest` for an invalid key.

    kind: what the route creates; all paths of one kind are the same. digest: the body as one text.
    """
    if key is None:
        return None
    if not (0 < len(key) <= MAX_LENGTH and key.isascii() and key.isprintable()):
        problem = f"must have from 1 to {MAX_LENGTH} printable ASCII characters"
        raise InvalidRequest(FieldProblem(NAME, problem))
    fingerprint = hashlib.sha256(f"{kind}\n{digest}".encode("utf-8", "surrogatepass")).hexdigest()
    return IdempotencyClaim(key, fingerprint)
