"""Reads request bodies as JSON objects. Duplicate members, NaN and deep nesting are refused, unlike in most parsers.

Routes read the body after authentication, so that a caller without a key can't make the server read or parse anything.
"""

import asyncio
import json
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from allaprima.domain.fields import json_type, problems_in
from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.settings import ServerSettings

#: Name of the field in problems that concern the whole body.
BODY = "body"

M = TypeVar("M", bound=BaseModel)


async def read_object(request: Request, settings: ServerSettings, *, is_optional: bool = False) -> dict[str, Any]:
    """Return the body as a JSON object. is_optional: a missing body is an empty object.

    Raises `InvalidRequest` for a body that is not a JSON object, and `HTTPException` with 408 for a body that takes too
    long, 413 for one that is too large and 415 for another media type or a
    compressed body.
    """
    if (encoding := request.headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
        problem = f"Content-Encoding {encoding[:40]!a} is not supported; send the body without compression"
        raise HTTPException(415, problem, {"accept-encoding": "identity"})
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, "the body must be application/json")
    try:
        async with asyncio.timeout(settings.receive_s):
            body = await _read(request, settings.max_body_bytes)
    except TimeoutError as exc:
        raise HTTPException(408, f"the body was not received within {settings.receive_s:g} s") from exc
    return {} if is_optional and not body else parse_object(body)


async def read_model(request: Request, settings: ServerSettings, model: type[M]) -> M:
    """Return the body as a model; a missing body is an empty object. Raises `InvalidRequest`, and see `read_object`."""
    try:
        return model.model_validate(await read_object(request, settings, is_optional=True))
    except ValidationError as exc:
        raise InvalidRequest(*problems_in(exc)) from exc


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    too_large = HTTPException(413, f"the body may have at most {max_bytes} bytes")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return a JSON object. Raises `InvalidRequest`, which describes the error in the text."""
    if not body.strip():
        raise _invalid("must be a JSON object; it is empty")
    try:
        # RFC 8259, section 8.1, allows a reader to ignore a byte order mark.
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError as exc:
        raise _invalid("must be UTF-8") from exc
    except RecursionError as exc:
        raise _invalid("is nested too deeply") from exc
    except ValueError as exc:
        raise _invalid(f"must be valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise _invalid(f"must be a JSON object; it is {json_type(value)}")
    return value


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(FieldProblem(BODY, message))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise InvalidRequest(FieldProblem(name, "is given more than once"))
        values[name] = value
    for name in values:
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise InvalidRequest(
                FieldProblem(name[:60], "must have a name in valid Unicode; it contains a lone surrogate")
            )
    return values


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
