"""Conditional requests: compares entity tags of the client with the current one."""

from fastapi import Request


def has_current(request: Request, etag: str) -> bool:
    """Return whether `If-None-Match` matches an entity tag. etag: weak or strong, with its quotes.

    The comparison is weak. Source: RFC 9110, sections 13.1.2 and 8.8.3.2.
    """
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag.removeprefix("W/") in tags or "*" in tags
