"""Reads the parameters that `engine.encode` writes into image files.

Source: the `parameters` text of AUTOMATIC1111/stable-diffusion-webui, `parse_generation_parameters`, for files without
allaprima's own JSON.
"""

import json
import re
from pathlib import Path
from typing import Any

from allaprima.errors import FieldProblem, InvalidRequest

#: Fields of a request that an image file contains.
FIELDS = {"prompt": str, "model": str, "width": int, "height": int, "steps": int, "seed": int}
_SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d+)x(\d+)")


def read_parameters(path: Path) -> dict[str, Any]:
    """Return the parameters of an image file by the names of the request's fields. Raises `InvalidRequest`."""
    from PIL import ExifTags, Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            texts = {name: text for name, text in image.info.items() if isinstance(text, str)}
            comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    except UnidentifiedImageError as exc:
        raise InvalidRequest(FieldProblem("--like", f"{path} is no image")) from exc
    except OSError as exc:
        raise InvalidRequest(FieldProblem("--like", f"{path} can't be read: {exc.strerror or exc}")) from exc
    found = _from_json(texts.get("allaprima", "")) or _from_text(texts.get("parameters", "") or _comment(comment))
    if found is None:
        raise InvalidRequest(FieldProblem("--like", f"{path} has no parameters of a generation"))
    return found


def _comment(data: bytes) -> str:
    """Return the text of an EXIF UserComment, whose first 8 bytes name its encoding."""
    if not isinstance(data, bytes) or not data.startswith(b"UNICODE\0"):
        return ""
    return data[8:].decode("utf-16-be", "replace")


def _from_json(text: str) -> dict[str, Any] | None:
    try:
        values = json.loads(text)
    except ValueError:
        return None
    if not isinstance(values, dict) or not all(isinstance(values.get(name), kind) for name, kind in FIELDS.items()):
        return None
    return {name: values[name] for name in FIELDS}


def _from_text(text: str) -> dict[str, Any] | None:
    prompt, _, line = text.strip().rpartition("\n")
    settings = {name: _unquoted(value) for name, value in _SETTING.findall(line)}
    size = _SIZE.fullmatch(settings.get("Size", ""))
    if size is None or not all(settings.get(name, "").isdecimal() for name in ("Steps", "Seed")):
        return None
    found = {
        "prompt": prompt,
        "width": int(size[1]),
        "height": int(size[2]),
        "steps": int(settings["Steps"]),
        "seed": int(settings["Seed"]),
    }
    return found | ({"model": settings["Model"]} if settings.get("Model") else {})


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value.strip()
    except ValueError:
        return value
