"""The parameters that all usage endpoints share: the time range, and the key whose usage is shown."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from allaprima.api.http.query import Moment, QueryModel
from allaprima.domain.accounts import ApiKey
from allaprima.domain.fields import refusal
from allaprima.domain.usage import UsageRange
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
    """A time range, either as start and end or as a period until now, and the key whose usage is shown."""

    start: Moment | None = Field(None, description="Start in ISO 8601; without an offset in UTC.")
    end: Moment | None = Field(
        None, validate_default=True, description=f"End in ISO 8601, at most {MAX_RANGE.days} days after start."
    )
    # After start and end, because its validator reads both.
    period: Period | None = Field(
        None,
        validate_default=True,
        description=f"The period until now: a positive integer and h or d, such as 24h or 7d, at most {MAX_RANGE.days} "
        "days. Required unless start and end are given.",
    )
    key_prefix: str | None = Field(
        None,
        description="Prefix of the key whose usage is shown. An ordinary key can read its own usage only; for a "
        "management key the default is the whole account.",
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
            # The start or the end is invalid and already reported.
            return period
        bounds = [info.data["start"], info.data["end"]]
        if period is not None and bounds != [None, None]:
            raise refusal("cannot be combined with start and end")
        if period is None and None in bounds:
            raise refusal("is required unless start and end are given")
        return period

    def bounds(self, now: float) -> tuple[float, float]:
        """Return start and end in unix seconds. now: the end of a period, in unix seconds."""
        if self.period is not None:
            end = datetime.fromtimestamp(now, UTC)
            return (end - self.period).timestamp(), end.timestamp()
        assert self.start is not None  # the validators require it
        assert self.end is not None
        return self.start.timestamp(), self.end.timestamp()


async def usage_range(query: TimeRangeQuery, key: ApiKey, service: Service) -> UsageRange:
    """Return the account, the key and the time range of a usage request.

    Without a prefix, an ordinary key reads its own usage and a management key that of the account. Raises `Forbidden`
    if an ordinary key names another key, and `KeyNotFound` for a prefix that is not one of the account's keys.
    """
    key_id = None if key.is_management else key.id
    if query.key_prefix is not None:
        if query.key_prefix != key.prefix and not key.is_management:
            raise Forbidden(
                "An ordinary key can read its own usage only; use a management key to read that of other keys"
            )
        key_id = (await service.keys.find_any(query.key_prefix, key.account_id)).id
    start, end = query.bounds(service.clock())
    return UsageRange(key.account_id, start, end, key_id)
