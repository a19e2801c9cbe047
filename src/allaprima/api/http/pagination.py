"""Cursors of lists whose ids sort by time: opaque to clients, and refused in any form that we did not write."""

import base64
import re

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def write_cursor(last_id: str) -> str:
    """Return what leads to the page after an id."""
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def read_cursor(text: str) -> str | None:
    """Return the id of a cursor, or None for a text that is none of ours."""
    try:
        last_id = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        return None
    return last_id if _ID.fullmatch(last_id) and write_cursor(last_id) == text else None
