"""Parses JSON objects from files that may be damaged or made to harm."""

import json
from typing import Any


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object. NaN and infinities are parsed as floats.

    Raises `ValueError` with a clause that has no subject ("is not JSON: ..."): for bytes that are not UTF-8, invalid
    JSON, numbers of thousands of digits, deep nesting, keys that occur twice in an object or are not valid Unicode, and
    any other value.
    """
    try:
        value = json.loads(text if isinstance(text, str) else text.decode(), object_pairs_hook=_distinct)
    except UnicodeDecodeError as exc:
        raise ValueError(f"is not UTF-8: the byte at offset {exc.start} is invalid") from exc
    except RecursionError as exc:
        raise ValueError("is nested too deeply") from exc
    except json.JSONDecodeError as exc:
        raise ValueError(f"is not JSON: {exc}") from exc
    except _InvalidKey as exc:
        raise ValueError(str(exc)) from exc
    # Python refuses to parse integers of thousands of digits.
    except ValueError as exc:
        raise ValueError("has a number with thousands of digits") from exc
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - one type of error for every damage
    return value


class _InvalidKey(ValueError):
    """A key that an object can't have. The argument is a clause without a subject."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise _InvalidKey(f"has the key {key[:60]!a} twice in one object")
        if any("\ud800" <= character <= "\udfff" for character in key):
            raise _InvalidKey("has a key that is not valid Unicode")
        values[key] = value
    return values
