"""The fields of a request for pictures: what each takes, how the OpenAPI document shows it, what is said of others."""

import json
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from allaprima import request as limits
from allaprima.api.http.body import json_type

PRESETS: dict[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}


def refuse(message: str) -> PydanticCustomError:
    """Return what makes a validator say that."""
    # Without a context pydantic takes the template as it stands, braces and all.
    return PydanticCustomError("allaprima", message)


def integral(problem: Callable[[int], str | None]) -> Callable[[Any], int]:
    """Accept a JSON number without a fraction that has no problem; refuse booleans and numbers in strings."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refuse(f"must be an integer; it is {json_type(value)}")
        if isinstance(value, float) and not value.is_integer():
            raise refuse(f"must be an integer; it is {value}")
        if message := problem(int(value)):
            raise refuse(message)
        return int(value)

    return check


def boolean(value: Any) -> bool:
    """Accept true and false; refuse whatever else passes for them."""
    if not isinstance(value, bool):
        raise refuse(f"must be true or false; it is {json_type(value)}")
    return value


def prompt(value: Any) -> str:
    """Accept a prompt that can be painted."""
    if not isinstance(value, str):
        raise refuse(f"must be a string; it is {json_type(value)}")
    if message := limits.prompt_problem(value):
        raise refuse(message)
    return value


def text_of(value: Any) -> str:
    """Accept a string."""
    if not isinstance(value, str):
        raise refuse(f"must be a string; it is {json_type(value)}")
    return value


def choice(*allowed: str) -> Callable[[Any], str]:
    """Accept one of some words."""

    def check(value: Any) -> str:
        if value not in allowed:
            shown = json.dumps(value)[:60] if isinstance(value, str) else json_type(value)
            expected = " | ".join(f"'{one}'" for one in allowed)
            raise refuse(f"Invalid enum value. Expected {expected}, received {shown}")
        return str(value)

    return check


def _integer_schema(low: int, high: int, default: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": low, "maximum": high, "default": default})


_SIDE_SCHEMA = {
    "type": "integer",
    "minimum": limits.MIN_SIDE,
    "maximum": limits.MAX_SIDE,
    "multipleOf": limits.SIDE_STEP,
}

Side = Annotated[int, BeforeValidator(integral(limits.side_problem)), WithJsonSchema(_SIDE_SCHEMA)]
Count = Annotated[int, BeforeValidator(integral(limits.count_problem)), _integer_schema(1, limits.MAX_COUNT, default=1)]
Steps = Annotated[
    int,
    BeforeValidator(integral(limits.steps_problem)),
    _integer_schema(1, limits.MAX_STEPS, limits.DEFAULT_STEPS),
]
# A bound of the document is a floating-point number, which can say 2**63 exactly but not 2**63 - 1.
_SEED_SCHEMA = {"type": "integer", "minimum": 0, "exclusiveMaximum": limits.MAX_SEED + 1}
Seed = Annotated[int, BeforeValidator(integral(limits.seed_problem)), WithJsonSchema(_SEED_SCHEMA)]
Flag = Annotated[bool, BeforeValidator(boolean), WithJsonSchema({"type": "boolean"})]
OUTPUT_FORMATS = ("png", "jpeg", "webp", "url", "b64_json")
RESPONSE_FORMATS = ("url", "b64_json")


class SizeObject(BaseModel):
    """A size in pixels; a side that is left out is the default's."""

    model_config = ConfigDict(extra="allow")

    width: Side = limits.DEFAULT_WIDTH
    height: Side = limits.DEFAULT_HEIGHT


def size_of(value: Any) -> Any:
    """Give presets and "WxH" the form of a size object."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        if value == "auto":
            return {}
        if value in PRESETS:
            width, height = PRESETS[value]
            return {"width": width, "height": height}
        width_text, by, height_text = value.lower().partition("x")
        if by and all(text.isascii() and text.isdigit() and len(text) < 10 for text in (width_text, height_text)):
            return {"width": int(width_text), "height": int(height_text)}
        expected = " | ".join(f"'{name}'" for name in PRESETS)
        raise refuse(
            f'Invalid enum value. Expected {expected}, "WIDTHxHEIGHT" or an object, received {json.dumps(value)[:60]}'
        )
    raise refuse(f"must be an object with width and height, or a preset's name; it is {json_type(value)}")


_SIZE_SCHEMA = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                "width": _SIDE_SCHEMA | {"default": limits.DEFAULT_WIDTH},
                "height": _SIDE_SCHEMA | {"default": limits.DEFAULT_HEIGHT},
            },
        },
        {"type": "string", "enum": list(PRESETS)},
        {"type": "string", "pattern": "^[0-9]{2,4}x[0-9]{2,4}$"},
        {"type": "string", "const": "auto"},
    ]
}
Size = Annotated[SizeObject, BeforeValidator(size_of), WithJsonSchema(_SIZE_SCHEMA)]

#: Seconds of the shortest time that a picture is kept.
MIN_TTL_S = 60
#: And of what any operator could mean.
MAX_TTL_S = 10**12
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def seconds_problem(value: Any, most: float | None = None) -> str | None:
    """Say what is wrong with a time to keep a picture, if anything."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_TTL_S <= value <= MAX_TTL_S:
        return f"must be a number of seconds, {MIN_TTL_S} or more"
    if most is not None and value > most:
        return f"must be at most {most:.0f} seconds on this server"
    return None


def _seconds(value: Any) -> float:
    if message := seconds_problem(value):
        raise refuse(message)
    return float(value)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise refuse("must have from 1 to 64 of A-Z, a-z, 0-9 and . _ : -")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise refuse("must be a number from 0 to 1")
    return float(value)


ExpiresIn = Annotated[float, BeforeValidator(_seconds), WithJsonSchema({"type": "number", "minimum": MIN_TTL_S})]
GroupId = Annotated[
    str, BeforeValidator(_name), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"})
]
Share = Annotated[float, BeforeValidator(_share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
Text = Annotated[str, BeforeValidator(text_of)]
Prompt = Annotated[
    str,
    BeforeValidator(prompt),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": limits.MAX_PROMPT}),
]
