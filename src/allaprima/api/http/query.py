"""Query parameters as pydantic models with strict validation of names, values and repetition.

A route declares `Annotated[Model, query_of(Model)]`. FastAPI validates and documents the model. In addition, this
module refuses a parameter that is given twice (FastAPI would use the last value) or contains a NUL, and reports all
problems together, each under the parameter's name.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, get_origin
from zoneinfo import ZoneInfo, available_timezones

from fastapi import Depends, Query, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from allaprima.domain.fields import refusal
from allaprima.errors import FieldProblem, InvalidRequest

FIRST_YEAR, LAST_YEAR = 1971, 9000
MAX_OFFSET = 10**9
MAX_MODELS = 50
_MAX_NAME = 60
_STATE = "allaprima.query_model"


class QueryModel(BaseModel):
    """The parameters of an endpoint. Unknown parameters are refused; list fields may be repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def query_of(model: type[QueryModel]) -> Any:
    """Return the dependency that reads a request's query as a model. It raises `InvalidRequest` with all problems.

    It does not authenticate the caller; the route must declare a key as another dependency.
    """

    async def refused(request: Request) -> list[FieldProblem]:
        # Runs before FastAPI's validation, whose error handler needs the model.
        request.scope[_STATE] = model
        return _refused(model, request)

    async def read(
        refused: Annotated[list[FieldProblem], Depends(refused)],
        query: Annotated[model, Query()],  # type: ignore[valid-type]
    ) -> Any:
        if refused:
            raise InvalidRequest(*refused)
        return query

    return Depends(read)


def problems_of(request: Request, errors: Iterable[Any]) -> list[FieldProblem]:
    """Return the problems of a request that failed FastAPI's validation, one per parameter."""
    model: type[QueryModel] | None = request.scope.get(_STATE)
    found = _refused(model, request) if model else []
    for error in errors:
        name = ".".join(map(str, error["loc"][1:]))
        message = error["msg"]
        if error["type"] == "extra_forbidden":
            message = "is not a parameter of this endpoint"
            if model:
                message += f"; known are {', '.join(sorted(_names(model)))}"
        found.append(FieldProblem(name[:_MAX_NAME], message))
    return list({problem.field: problem for problem in reversed(found)}.values())[::-1]


def _names(model: type[QueryModel]) -> dict[str, bool]:
    """Return the names of a model's parameters, and whether each may be repeated."""
    return {field.alias or name: get_origin(field.annotation) is list for name, field in model.model_fields.items()}


def _refused(model: type[QueryModel], request: Request) -> list[FieldProblem]:
    given = request.query_params
    repeated = [
        FieldProblem(name, "must be given once")
        for name, is_list in _names(model).items()
        if not is_list and len(given.getlist(name)) > 1
    ]
    # PostgreSQL stores no such text, so nothing can be found by it.
    return repeated + [
        FieldProblem(name, "must not contain the NUL character")
        for name in _names(model)
        if any("\0" in value for value in given.getlist(name))
    ]


def whole_number(low: int, high: int) -> BeforeValidator:
    """Return the validator of an integer in decimal digits."""

    def check(value: Any) -> Any:
        if isinstance(value, str):
            if not (value.isascii() and value.isdigit() and len(value) < 16 and low <= int(value) <= high):
                raise refusal(f"must be an integer from {low} to {high}")
            return int(value)
        return value

    return BeforeValidator(check)


def one_of(words: type[StrEnum] | tuple[str, ...]) -> BeforeValidator:
    """Return the validator of a choice. words: the allowed values."""
    allowed = [str(word) for word in words]
    expected = " | ".join(f"'{word}'" for word in allowed)

    def check(value: Any) -> Any:
        if value not in allowed:
            raise refusal(f"Invalid enum value. Expected {expected}")
        return value

    return BeforeValidator(check)


def _moment(*, needs_offset: bool) -> Callable[[Any], datetime]:
    def check(value: Any) -> datetime:
        try:
            # URL decoding turns a plus sign that the client did not escape into a space.
            found = datetime.fromisoformat(str(value).replace(" ", "+"))
        except ValueError as exc:
            raise refusal("must be a time in ISO 8601, such as 2026-07-20T22:15:00Z") from exc
        if found.tzinfo is None and needs_offset:
            raise refusal("must have an offset, such as Z or +02:00")
        if not FIRST_YEAR <= found.year <= LAST_YEAR:
            raise refusal(f"must be a time in the years {FIRST_YEAR} to {LAST_YEAR}")
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    return check


@cache
def _zones() -> frozenset[str]:
    # Cached because it reads files. "localtime" is a file on some systems, but not a time zone.
    return frozenset(available_timezones() - {"localtime"})


def _zone(value: Any) -> ZoneInfo:
    if value not in _zones():
        raise refusal("must be the exact name of an IANA time zone, such as UTC or Europe/Berlin")
    return ZoneInfo(value)


def _models(values: list[str]) -> list[str]:
    if len(values) > MAX_MODELS or any("," in value for value in values):
        raise refusal(f"must be given once per model, at most {MAX_MODELS} times; commas do not separate models")
    return values


_DATE_TIME = WithJsonSchema({"type": "string", "format": "date-time"})

#: Largest number of entries of a page.
PageSize = Annotated[int, whole_number(1, 100), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 100})]
#: Number of skipped entries.
Offset = Annotated[
    int, whole_number(0, MAX_OFFSET), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_OFFSET})
]
#: A time in ISO 8601; without an offset in UTC.
Moment = Annotated[datetime, BeforeValidator(_moment(needs_offset=False)), _DATE_TIME]
#: A time in ISO 8601 with an offset.
MomentWithOffset = Annotated[datetime, BeforeValidator(_moment(needs_offset=True)), _DATE_TIME]
#: The exact name of an IANA time zone.
TimeZone = Annotated[ZoneInfo, BeforeValidator(_zone), WithJsonSchema({"type": "string"})]
#: Model ids; the parameter is repeated for each.
ModelIds = Annotated[
    list[str],
    AfterValidator(_models),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "maxItems": MAX_MODELS}),
]
