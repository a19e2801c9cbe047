"""Names of image files."""

import re

#: Longest part of a file's name that comes from the prompt, in bytes of UTF-8.
MAX_NAME_BYTES = 80


def name_of(prompt: str) -> str:
    """Return a prompt as a part of a file's name, such as `a-t-rex-on-a-beach`."""
    words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-_")
    cut = words.encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    return (cut if cut == words else cut.rpartition("-")[0] or cut).strip("-_") or "image"
