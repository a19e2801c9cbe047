"""Cursors of lists whose ids sort by time. They are opaque to clients, and altered cursors are refused."""

import base64
import re
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from allaprima.domain.fields import refusal

#: A UUIDv7, whose text sorts by time.
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def write_cursor(last_id: str) -> str:
    """Return the cursor of the page after an id."""
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def read_cursor(text: str) -> str | None:
    """Return the id in a cursor. Returns None for a text that `write_cursor` did not return."""
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


#: A query parameter: the `next_cursor` of the previous page, read as the last id of that page.
Cursor = Annotated[str, AfterValidator(_id_of), WithJsonSchema({"type": "string"})]
