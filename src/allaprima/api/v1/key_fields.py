"""The members of a key's body, each refused by name."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field

from allaprima.domain.accounts import LimitPeriod, SpendLimit
from allaprima.domain.billing import to_credits
from allaprima.domain.fields import json_type
from allaprima.errors import FieldProblem, InvalidRequest

#: The platform's scopes; only `model:image` opens anything here.
SCOPES = tuple(
    f"model:{what}" for what in ("chat", "responses", "image", "audio", "video", "embeddings", "speech", "ocr")
)
MAX_NAME = 200
#: US dollars; a limit above it is no limit.
MAX_THRESHOLD = 1_000_000_000


class LimitBody(BaseModel):
    """The most that a key may be charged in a window."""

    retention: LimitPeriod = Field(description="Windows begin at 00:00 UTC, a week's on Monday, a month's on the 1st.")
    threshold: float = Field(ge=0, le=MAX_THRESHOLD, description="US dollars.")


class KeyBody(BaseModel):
    """What a key is to be; members that are left out are as they were."""

    name: str | None = Field(None, max_length=MAX_NAME)
    disabled: bool | None = None
    limit: LimitBody | None = None
    scopes: list[str] | None = None
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    safety_threshold: float | None = Field(None, ge=0, le=1)


def read_key_body(values: dict[str, Any]) -> dict[str, Any]:
    """Return what a body says of a key, as members of a `KeySpec`. Raises `InvalidRequest` with every problem."""
    read: dict[str, Any] = {}
    problems: list[FieldProblem] = []
    for name, value in values.items():
        if name not in _READERS:
            known = ", ".join(_READERS)
            problems.append(FieldProblem(name[:60], f"is not a member of a key; known are {known}"))
            continue
        target, reader = _READERS[name]
        try:
            read[target] = reader(value)
        except ValueError as exc:
            field, _, message = str(exc).rpartition("\n")
            problems.append(FieldProblem(field or name, message))
    if problems:
        raise InvalidRequest(*problems)
    return read


def _name(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_NAME or any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError(f"must be a string of at most {MAX_NAME} characters, or null")
    return value


def _disabled(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false; it is {json_type(value)}")  # noqa: TRY004 - a client's value
    return value


def _limit(value: Any) -> SpendLimit | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"retention", "threshold"}:
        raise ValueError("must be null or an object of retention and threshold")
    if value["retention"] not in list(LimitPeriod):
        expected = " | ".join(f"'{one.value}'" for one in LimitPeriod)
        raise ValueError(f"limit.retention\nInvalid enum value. Expected {expected}")
    threshold = value["threshold"]
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= MAX_THRESHOLD:
        raise ValueError(f"limit.threshold\nmust be US dollars from 0 to {MAX_THRESHOLD}")
    return SpendLimit(LimitPeriod(value["retention"]), to_credits(threshold))


def _scopes(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(scope, str) and scope in SCOPES for scope in value):
        raise ValueError(f"must be null or a list of scopes; known are {', '.join(SCOPES)}")
    return tuple(dict.fromkeys(value))


def _requests(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise ValueError("must be null or an integer from 1 to 1000000")
    return value


def _threshold(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("must be null or a number from 0 to 1")
    return float(value)


#: Member to the name that a `KeySpec` has for it, and what reads it.
_READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "name": ("name", _name),
    "disabled": ("is_disabled", _disabled),
    "limit": ("limit", _limit),
    "scopes": ("scopes", _scopes),
    "requests_per_minute": ("requests_per_minute", _requests),
    "safety_threshold": ("safety_threshold", _threshold),
}
