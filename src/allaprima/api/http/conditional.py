"""Conditional requests: whether the client has the current version already."""

from fastapi import Request


def has_current(request: Request, etag: str) -> bool:
    """Return whether `If-None-Match` names an entity tag, or any. etag: with its quotes, weak or strong.

    Tags are compared weakly. Source: RFC 9110, sections 13.1.2 and 8.8.3.2.
    """
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag.removeprefix("W/") in tags or "*" in tags
