"""Parameters of the usage endpoints: strict about their names, their forms and the window of time."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from fastapi import Request

from allaprima.domain.accounts import ApiKey
from allaprima.domain.billing import UsageRange
from allaprima.errors import FieldProblem, Forbidden, InvalidRequest, KeyNotFound
from allaprima.service.app import Service

FIRST_YEAR, LAST_YEAR = 1971, 9000
MAX_WINDOW = timedelta(days=92)
_PERIOD = re.compile(r"([1-9][0-9]{0,5})([hd])")


class Parameters:
    """A query's parameters, each read once; `finish` refuses what is left and all that was wrong."""

    def __init__(self, request: Request) -> None:
        self._given = request.query_params
        self._known: set[str] = set()
        self.problems: list[FieldProblem] = []

    def one(self, name: str) -> str | None:
        """Return a parameter that may be given once."""
        values = self.many(name)
        if len(values) > 1:
            self.refuse(name, "must be given once")
        return values[0] if values else None

    def many(self, name: str) -> list[str]:
        """Return every value of a parameter."""
        self._known.add(name)
        return self._given.getlist(name)

    def choice(self, name: str, allowed: Iterable[str]) -> str | None:
        """Return a parameter that is one of some words."""
        value, words = self.one(name), list(allowed)
        if value is not None and value not in words:
            expected = " | ".join(f"'{word}'" for word in words)
            self.refuse(name, f"Invalid enum value. Expected {expected}")
            return None
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """Return a parameter that is an integer within bounds."""
        value = self.one(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 16 and low <= int(value) <= high):
            self.refuse(name, f"must be an integer from {low} to {high}")
            return default
        return int(value)

    def moment(self, name: str, *, needs_offset: bool = False) -> datetime | None:
        """Return a parameter that is a time in ISO 8601; one without an offset is UTC's."""
        value = self.one(name)
        if value is None:
            return None
        try:
            found = datetime.fromisoformat(value.replace(" ", "+"))
        except ValueError:
            self.refuse(name, "must be a time in ISO 8601, such as 2026-07-20T22:15:00Z")
            return None
        if found.tzinfo is None and needs_offset:
            self.refuse(name, "must have an offset, such as Z or +02:00")
            return None
        moment = found if found.tzinfo else found.replace(tzinfo=UTC)
        if not FIRST_YEAR <= found.year <= LAST_YEAR:
            self.refuse(name, f"must be a time of the years {FIRST_YEAR} to {LAST_YEAR}")
            return None
        return moment

    def refuse(self, name: str, message: str) -> None:
        """Note what is wrong."""
        self.problems.append(FieldProblem(name, message))

    def finish(self) -> None:
        """Raise `InvalidRequest` for all that was wrong, parameters that nobody asked for included."""
        known = ", ".join(sorted(self._known)) or "none"
        for name in self._given:
            if name not in self._known:
                self.refuse(name[:60], f"is not a parameter of this endpoint; known are {known}")
        if self.problems:
            raise InvalidRequest(*dict.fromkeys(self.problems))


async def read_window(parameters: Parameters, service: Service, key: ApiKey) -> tuple[UsageRange, str | None]:
    """Return whose usage is asked for, and of when, and the prefix of the key that was named.

    Without a prefix an ordinary key reads its own usage, a management key the account's.

    Raises `InvalidRequest` for all parameters at once, `Forbidden` for an ordinary key that names another, and
    `KeyNotFound` for one that is not the account's.
    """
    start, end = _window(parameters, datetime.fromtimestamp(service.clock(), UTC))
    prefix = parameters.one("key_prefix")
    parameters.finish()
    key_id = None if key.is_management else key.id
    if prefix is not None:
        if prefix != key.prefix and not key.is_management:
            raise Forbidden("An ordinary key sees its own usage only; ask with a management key for another's")
        key_id = await find_key(service, key.account_id, prefix)
    return UsageRange(key.account_id, start.timestamp(), end.timestamp(), key_id), prefix


async def find_key(service: Service, account_id: str, prefix: str) -> str:
    """Return the id of an account's key, deleted or not. Raises `KeyNotFound`."""
    rows = await service.keys.all(account_id)
    key_id = next((row.id for row in rows if row.prefix == prefix), None)
    if key_id is None:
        raise KeyNotFound
    return key_id


def _window(parameters: Parameters, now: datetime) -> tuple[datetime, datetime]:
    period = parameters.one("period")
    start, end = parameters.moment("start"), parameters.moment("end")
    named = [name for name in ("start", "end") if parameters.one(name) is not None]
    if period is not None and named:
        parameters.refuse("period", "can't be given beside start and end")
    elif period is not None:
        found = _PERIOD.fullmatch(period)
        length = int(found[1]) * (timedelta(hours=1) if found[2] == "h" else timedelta(days=1)) if found else None
        if length is None:
            parameters.refuse("period", "must be a positive integer and h or d, such as 24h or 7d")
        elif length > MAX_WINDOW:
            parameters.refuse("period", "must be at most 92 days")
        else:
            return now - length, now
    elif start is None or end is None:
        if not parameters.problems:
            parameters.refuse("period", "is required, or start and end")
    elif end < start:
        parameters.refuse("end", "must not be before start")
    elif end - start > MAX_WINDOW:
        parameters.refuse("end", "must be at most 92 days after start")
    else:
        return start, end
    return now, now


@cache
def _zones() -> frozenset[str]:
    # Looked for on the disk, so once; "localtime" is a file of some systems, and no zone.
    return frozenset(available_timezones() - {"localtime"})


def read_zone(parameters: Parameters) -> ZoneInfo:
    """Return the time zone that days are to be of: an exact IANA name, `UTC` by default."""
    name = parameters.one("tz")
    if name is None:
        return ZoneInfo("UTC")
    if name not in _zones():
        parameters.refuse("tz", "must be an IANA time zone, such as UTC or Europe/Berlin, exactly as it is written")
        return ZoneInfo("UTC")
    return ZoneInfo(name)


def documented(name: str, description: str, *, is_repeated: bool = False) -> dict[str, Any]:
    """Return how the OpenAPI document shows a parameter that `Parameters` reads."""
    schema: dict[str, Any] = {"type": "string"}
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": "array", "items": schema} if is_repeated else schema,
    }
