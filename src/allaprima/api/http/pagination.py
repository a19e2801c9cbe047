"""Cursors of lists whose ids sort by time: opaque to clients, and refused in any form that the server did not issue."""

import base64
import re
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from allaprima.domain.fields import refusal

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def write_cursor(last_id: str) -> str:
    """Return the cursor of the page that follows an id."""
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def read_cursor(text: str) -> str | None:
    """Return the id of a cursor, or None for a text that is not a cursor of this server."""
    try:
        last_id = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        return None
    return last_id if _ID.fullmatch(last_id) and write_cursor(last_id) == text else None


def _id_of(text: Any) -> str:
    last_id = read_cursor(text)
    if last_id is None:
        raise refusal("invalid cursor; omit it for the first page")
    return last_id


#: A query parameter: `next_cursor` of the previous page, read as the id that the page follows.
Cursor = Annotated[str, AfterValidator(_id_of), WithJsonSchema({"type": "string"})]
