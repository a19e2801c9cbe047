"""Types of single fields: their validation, their JSON Schema and their error messages.

The messages are the same for request bodies, command-line options and stored rows.
"""

import json
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from allaprima.errors import FieldProblem

#: Smallest and largest side of an image in pixels; every side is a multiple of `SIDE_STEP`.
MIN_SIDE, MAX_SIDE, SIDE_STEP = 64, 1536, 32
DEFAULT_WIDTH, DEFAULT_HEIGHT = 1024, 768
MAX_STEPS, DEFAULT_STEPS = 12, 4
MAX_COUNT = 4
#: Longest prompt in characters.
MAX_PROMPT = 4000
MAX_SEED = 2**63 - 1
#: Exclusive upper bound of random seeds.
RANDOM_SEED_BOUND = 2**32
#: Bounds of the storage time of an image, in seconds.
MIN_TTL_S, MAX_TTL_S = 60, 10**12
#: Replacements of pydantic's messages, by type of error.
_MESSAGES = {"missing": "is required", "extra_forbidden": "is not a known field"}
_GROUP_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def refusal(message: str) -> PydanticCustomError:
    """Return the error that a validator raises for an invalid value. message: a clause without a subject."""
    # Without a context, pydantic does not replace braces in the template.
    return PydanticCustomError("allaprima", message)


def problems_in(error: ValidationError) -> list[FieldProblem]:
    """Return the problems of a failed validation, one per field."""
    found = [
        FieldProblem(".".join(map(str, one["loc"]))[:60] or "body", _MESSAGES.get(one["type"], one["msg"]))
        for one in error.errors(include_url=False)
    ]
    return list({problem.field: problem for problem in reversed(found)}.values())[::-1]


def json_type(value: Any) -> str:
    """Return the name of a value's JSON type, with an article."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def nearest_side(px: float) -> int:
    """Return the valid side that is nearest to a number of pixels."""
    # Clamped before the division, which fails for very large integers.
    return round(min(MAX_SIDE, max(MIN_SIDE, px)) / SIDE_STEP) * SIDE_STEP


def whole_number(value: Any) -> int:
    """Validate an integer. A JSON number without a fraction is valid; a boolean and a number in a string are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refusal(f"must be an integer; it is {json_type(value)}")
    if isinstance(value, float) and not value.is_integer():
        raise refusal(f"must be an integer; it is {value}")
    return int(value)


def boolean(value: Any) -> bool:
    """Validate a boolean. Only true and false are valid."""
    if not isinstance(value, bool):
        raise refusal(f"must be true or false; it is {json_type(value)}")
    return value


def text(value: Any) -> str:
    """Validate a string."""
    if not isinstance(value, str):
        raise refusal(f"must be a string; it is {json_type(value)}")
    return value


def choice(*allowed: str) -> Callable[[Any], str]:
    """Return the validator of a choice. allowed: the valid strings."""

    def check(value: Any) -> str:
        if value not in allowed:
            shown = json.dumps(value)[:60] if isinstance(value, str) else json_type(value)
            expected = " | ".join(f"'{one}'" for one in allowed)
            raise refusal(f"Invalid enum value. Expected {expected}, received {shown}")
        return str(value)

    return check


def _shown(number: int) -> str:
    return str(number) if abs(number) < 10**24 else "far outside"


def _side(value: Any) -> int:
    px = whole_number(value)
    if not (MIN_SIDE <= px <= MAX_SIDE and px % SIDE_STEP == 0):
        raise refusal(
            f"must be a multiple of {SIDE_STEP} from {MIN_SIDE} to {MAX_SIDE}; "
            f"it is {_shown(px)}, and the nearest valid side is {nearest_side(px)}"
        )
    return px


def _in_range(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        number = whole_number(value)
        if not low <= number <= high:
            raise refusal(f"must be from {low} to {high}; it is {_shown(number)}")
        return number

    return check


def _prompt(value: Any) -> str:
    prompt = text(value)
    if not prompt.strip():
        raise refusal("must not be empty")
    if len(prompt) > MAX_PROMPT:
        raise refusal(f"must have at most {MAX_PROMPT} characters; it has {len(prompt)}")
    if "\x00" in prompt:
        raise refusal("must not contain the NUL character")
    if any("\ud800" <= character <= "\udfff" for character in prompt):
        raise refusal("must be valid Unicode; it contains a lone surrogate")
    return prompt


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_TTL_S <= value <= MAX_TTL_S:
        raise refusal(f"must be a number of seconds, {MIN_TTL_S} or more")
    return float(value)


def _group_id(value: Any) -> str:
    if not isinstance(value, str) or not _GROUP_ID.fullmatch(value):
        raise refusal("must have from 1 to 64 of the characters A-Z, a-z, 0-9 and . _ : -")
    return value


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise refusal("must be a number from 0 to 1")
    return float(value)


def _number_schema(low: int, high: int, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": low, "maximum": high} | more)


Side = Annotated[int, BeforeValidator(_side), _number_schema(MIN_SIDE, MAX_SIDE, multipleOf=SIDE_STEP)]
Count = Annotated[int, BeforeValidator(_in_range(1, MAX_COUNT)), _number_schema(1, MAX_COUNT)]
Steps = Annotated[int, BeforeValidator(_in_range(1, MAX_STEPS)), _number_schema(1, MAX_STEPS)]
# A JSON Schema bound is a double, which holds 2**63 exactly but not 2**63 - 1.
_SEED_SCHEMA = {"type": "integer", "minimum": 0, "exclusiveMaximum": MAX_SEED + 1}
Seed = Annotated[int, BeforeValidator(_in_range(0, MAX_SEED)), WithJsonSchema(_SEED_SCHEMA)]
Flag = Annotated[bool, BeforeValidator(boolean), WithJsonSchema({"type": "boolean"})]
Text = Annotated[str, BeforeValidator(text)]
Prompt = Annotated[
    str,
    BeforeValidator(_prompt),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_PROMPT}),
]
Seconds = Annotated[float, BeforeValidator(_seconds), WithJsonSchema({"type": "number", "minimum": MIN_TTL_S})]
GroupId = Annotated[
    str, BeforeValidator(_group_id), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"})
]
Share = Annotated[float, BeforeValidator(_share), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
