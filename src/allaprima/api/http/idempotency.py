"""`Idempotency-Key`: of equal requests with one key, one does something and the others are answered as it was.

Source: draft-ietf-httpapi-idempotency-key-header-07 (409 in flight, 422 for another request), with Stripe's limits (255
characters, 24 hours, nothing kept when validation failed). Keys belong to an account.
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


def claim(key: str | None, kind: str, digest: str) -> IdempotencyClaim | None:
    """Return what a request claims, if it claims anything. Raises `InvalidRequest` for a key that can't be one.

    kind: what the route makes; the paths of one kind are one. digest: the body as one text.
    """
    if key is None:
        return None
    if not (0 < len(key) <= MAX_LENGTH and key.isascii() and key.isprintable()):
        problem = f"must have from 1 to {MAX_LENGTH} printable ASCII characters"
        raise InvalidRequest(FieldProblem(NAME, problem))
    return IdempotencyClaim(key, hashlib.sha256(f"{kind}\n{digest}".encode("utf-8", "surrogatepass")).hexdigest())
