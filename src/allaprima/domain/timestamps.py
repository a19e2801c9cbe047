"""Formats times as text."""

from datetime import UTC, datetime


def iso(seconds: float) -> str:
    """Return unix seconds as ISO 8601 in UTC, with milliseconds and Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
