"""Reads the metadata of image files."""

import io
import json
from typing import Any

from PIL import Image


def read_metadata(data: bytes) -> dict[str, Any] | None:
    """Return the `allaprima` text of a PNG, or None for a file without one."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        text = getattr(image, "text", {}).get("allaprima")
    return None if text is None else json.loads(text)
