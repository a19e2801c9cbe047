"""Whose usage is asked for, and of which time: the parameters that all usage endpoints have in common."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from allaprima.api.http.query import Moment, QueryModel
from allaprima.domain.accounts import ApiKey
from allaprima.domain.billing import UsageRange
from allaprima.domain.fields import refusal
from allaprima.errors import Forbidden
from allaprima.service.app import Service

#: Longest time range.
MAX_RANGE = timedelta(days=92)
_PERIOD = re.compile(r"([1-9][0-9]{0,5})([hd])")


def _period(value: Any) -> timedelta:
    found = _PERIOD.fullmatch(value)
    if found is None:
        raise refusal("must be a positive integer and h or d, such as 24h or 7d")
    length = int(found[1]) * (timedelta(hours=1) if found[2] == "h" else timedelta(days=1))
    if length > MAX_RANGE:
        raise refusal(f"must be at most {MAX_RANGE.days} days")
    return length


Period = Annotated[
    timedelta, BeforeValidator(_period), WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,5}[hd]$"})
]


class TimeRangeQuery(QueryModel):
    """A time range, as a period that ends now or as start and end, and the key whose usage is asked for."""

    start: Moment | None = Field(None, description="Start in ISO 8601; UTC where no offset is given.")
    end: Moment | None = Field(
        None, validate_default=True, description=f"End in ISO 8601, at most {MAX_RANGE.days} days after start."
    )
    # After start and end, because its validator reads both.
    period: Period | None = Field(
        None,
        validate_default=True,
        description=f"A positive integer and h or d, such as 24h or 7d, at most {MAX_RANGE.days} days: the time until "
        "now. Required unless start and end are given.",
    )
    key_prefix: str | None = Field(
        None,
        description="Prefix of the key whose usage is shown. An ordinary key sees its own usage only; a management key "
        "sees the usage of the whole account by default.",
    )

    @field_validator("end")
    @classmethod
    def _check_end(cls, end: datetime | None, info: ValidationInfo) -> datetime | None:
        start = info.data.get("start")
        if start is not None and end is not None:
            if end < start:
                raise refusal("must not be before start")
            if end - start > MAX_RANGE:
                raise refusal(f"must be at most {MAX_RANGE.days} days after start")
        return end

    @field_validator("period")
    @classmethod
    def _check_period(cls, period: timedelta | None, info: ValidationInfo) -> timedelta | None:
        if not {"start", "end"} <= set(info.data):
            # One of them was refused, which says enough.
            return period
        bounds = [info.data["start"], info.data["end"]]
        if period is not None and bounds != [None, None]:
            raise refusal("can't be combined with start and end")
        if period is None and None in bounds:
            raise refusal("is required, or start and end")
        return period

    def bounds(self, now: float) -> tuple[float, float]:
        """Return start and end in unix seconds. now: in unix seconds, where a period ends."""
        if self.period is not None:
            end = datetime.fromtimestamp(now, UTC)
            return (end - self.period).timestamp(), end.timestamp()
        assert self.start is not None  # the validators require it
        assert self.end is not None
        return self.start.timestamp(), self.end.timestamp()


async def usage_range(query: TimeRangeQuery, key: ApiKey, service: Service) -> UsageRange:
    """Return whose usage a caller asks for, and of which time.

    Without a prefix an ordinary key reads its own usage, a management key the account's. Raises `Forbidden` for an
    ordinary key that names another key, and `KeyNotFound` for a key that is not the account's.
    """
    key_id = None if key.is_management else key.id
    if query.key_prefix is not None:
        if query.key_prefix != key.prefix and not key.is_management:
            raise Forbidden("An ordinary key sees its own usage only; use a management key to see another's")
        key_id = (await service.keys.find_any(query.key_prefix, key.account_id)).id
    start, end = query.bounds(service.clock())
    return UsageRange(key.account_id, start, end, key_id)
