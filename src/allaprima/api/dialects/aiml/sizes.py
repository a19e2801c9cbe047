"""Reads image sizes in the forms that clients of the platform and of OpenAI send."""

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
#: The preset of each aspect ratio.
RATIOS = {
    "1:1": "square_hd",
    "4:3": "landscape_4_3",
    "3:4": "portrait_4_3",
    "16:9": "landscape_16_9",
    "9:16": "portrait_16_9",
}
#: Names of the size member; the first is the documented one.
SIZE_NAMES = ("image_size", "size")
_SIDES = ("width", "height")
_DEFAULT = {"width": DEFAULT_WIDTH, "height": DEFAULT_HEIGHT}

SIDE_SCHEMA = {"type": "integer", "minimum": MIN_SIDE, "maximum": MAX_SIDE, "multipleOf": SIDE_STEP}
SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "properties": {name: SIDE_SCHEMA | {"default": default} for name, default in _DEFAULT.items()},
        },
        {"type": "string", "enum": list(PRESETS)},
        {"type": "string", "pattern": "^[0-9]{2,4}x[0-9]{2,4}$"},
        {"type": "string", "const": "auto"},
        {"type": "null"},
    ]
}


class SizeReader:
    """The size in a request body: the values of `width` and `height` before validation."""

    def __init__(self, given: dict[str, Any]) -> None:
        """given: the body's members that are not null."""
        self.values: dict[str, Any] = {}
        #: The names under which the client sent the two sides.
        self.names = {side: f"{SIZE_NAMES[0]}.{side}" for side in _SIDES}
        self.problems: list[FieldProblem] = []
        #: Unknown members of size objects.
        self.ignored: list[str] = []
        for name in SIZE_NAMES:
            if name in given and (size := self._size_of(name, given[name])) is not None:
                self._add(name, size, {side: f"{name}.{side}" for side in _SIDES})
        if sides := {side: given[side] for side in _SIDES if side in given}:
            self._add(next(iter(sides)), sides, {side: side for side in _SIDES})
        if "aspect_ratio" in given:
            self._add_ratio(given["aspect_ratio"])

    def _add(self, name: str, size: dict[str, Any], names: dict[str, str]) -> None:
        size = {side: size.get(side, _DEFAULT[side]) for side in _SIDES}
        if self.values and size != self.values:
            problem = f"contradicts {self._source}, which sets the same field; send only one of them"
            self.problems.append(FieldProblem(name, problem))
        elif not self.values:
            self.values, self.names = size, names

    @property
    def _source(self) -> str:
        """The client's name of the member that set the size."""
        return self.names["width"].removesuffix(".width")

    def _add_ratio(self, value: Any) -> None:
        """Apply an aspect ratio: its preset if no size was given, else only the check that the size has this ratio."""
        if not isinstance(value, str) or value not in RATIOS:
            expected = " | ".join(f"'{ratio}'" for ratio in RATIOS)
            shown = json.dumps(value)[:60] if isinstance(value, str) else json_type(value)
            problem = f"Invalid enum value. Expected {expected}, received {shown}"
            self.problems.append(FieldProblem("aspect_ratio", problem))
        elif not self.values:
            self.values = dict(zip(_SIDES, PRESETS[RATIOS[value]], strict=True))
            self.names = dict.fromkeys(_SIDES, "aspect_ratio")
        elif not self._has_ratio(*map(int, value.split(":"))):
            problem = f"contradicts {self._source}, which has another ratio; send only one of them"
            self.problems.append(FieldProblem("aspect_ratio", problem))

    def _has_ratio(self, across: int, down: int) -> bool:
        """Whether the size has a ratio. True for sides that are not numbers, which validation reports."""
        width, height = (self.values[side] for side in _SIDES)
        if not all(isinstance(side, int | float) for side in (width, height)):
            return True
        return bool(width * down == height * across)

    def _size_of(self, name: str, value: Any) -> dict[str, Any] | None:
        """Return a size of any form as a dict of sides; None after reporting a value of no valid form."""
        if isinstance(value, dict):
            self.ignored += [f"{name}.{member}" for member in value if member not in _SIDES]
            return value
        if not isinstance(value, str):
            problem = f"must be an object with width and height, or the name of a preset; it is {json_type(value)}"
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
