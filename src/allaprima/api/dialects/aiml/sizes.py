"""Image sizes as clients of the platform and of OpenAI write them."""

import json
from typing import Any

from allaprima.domain.fields import DEFAULT_HEIGHT, DEFAULT_WIDTH, MAX_SIDE, MIN_SIDE, SIDE_STEP, json_type
from allaprima.errors import FieldProblem

PRESETS: dict[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
#: Names of the size, the first of which is the documented one.
SIZE_NAMES = ("image_size", "size")
_SIDES = ("width", "height")
_DEFAULT = {"width": DEFAULT_WIDTH, "height": DEFAULT_HEIGHT}

_SIDE_SCHEMA = {"type": "integer", "minimum": MIN_SIDE, "maximum": MAX_SIDE, "multipleOf": SIDE_STEP}
SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "properties": {name: _SIDE_SCHEMA | {"default": default} for name, default in _DEFAULT.items()},
        },
        {"type": "string", "enum": list(PRESETS)},
        {"type": "string", "pattern": "^[0-9]{2,4}x[0-9]{2,4}$"},
        {"type": "string", "const": "auto"},
        {"type": "null"},
    ]
}


class SizeReader:
    """The size in a request body: values of `width` and `height`, not validated yet."""

    def __init__(self, given: dict[str, Any]) -> None:
        """given: the body's members that are not null."""
        self.values: dict[str, Any] = {}
        #: The client's names of the two sides.
        self.names = {side: f"{SIZE_NAMES[0]}.{side}" for side in _SIDES}
        self.problems: list[FieldProblem] = []
        #: Members of size objects without effect.
        self.ignored: list[str] = []
        for name in SIZE_NAMES:
            if name in given and (size := self._size_of(name, given[name])) is not None:
                self._add(name, {side: size.get(side, _DEFAULT[side]) for side in _SIDES})

    def _add(self, name: str, size: dict[str, Any]) -> None:
        if self.values and size != self.values:
            problem = f"contradicts {SIZE_NAMES[0]}, which is the same field; send one of them"
            self.problems.append(FieldProblem(name, problem))
        elif not self.values:
            self.values = size
            self.names = {side: f"{name}.{side}" for side in _SIDES}

    def _size_of(self, name: str, value: Any) -> dict[str, Any] | None:
        """Return a size in any of its forms as an object; None where it has none of them, which is a problem."""
        if isinstance(value, dict):
            self.ignored += [f"{name}.{member}" for member in value if member not in _SIDES]
            return value
        if not isinstance(value, str):
            problem = f"must be an object with width and height, or a preset's name; it is {json_type(value)}"
            self.problems.append(FieldProblem(name, problem))
            return None
        if value == "auto":
            return {}
        if value in PRESETS:
            return dict(zip(_SIDES, PRESETS[value], strict=True))
        texts = value.lower().partition("x")[::2]
        if all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts):
            return dict(zip(_SIDES, map(int, texts), strict=True))
        expected = " | ".join(f"'{preset}'" for preset in PRESETS)
        shown = json.dumps(value)[:60]
        problem = f'Invalid enum value. Expected {expected}, "WIDTHxHEIGHT" or an object, received {shown}'
        self.problems.append(FieldProblem(name, problem))
        return None
