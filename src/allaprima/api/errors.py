"""Maps errors to HTTP responses: the table of statuses, the headers, and bodies in the dialect of the exchange."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from allaprima import errors
from allaprima.api.dialects import AIML, Dialect
from allaprima.api.dialects.aiml.responses import ErrorBody
from allaprima.api.dialects.base import ErrorReport
from allaprima.api.http.query import problems_of
from allaprima.api.http.request_id import request_id_of

logger = logging.getLogger(__name__)

#: HTTP status by error class. A class that is missing has the status of its nearest ancestor.
STATUS: dict[type[errors.Error], int] = {
    errors.Error: 500,
    errors.InvalidRequest: 400,
    errors.IdempotencyMismatch: 422,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Busy: 503,
    errors.QueueFull: 429,
    errors.RateLimited: 429,
    errors.IdempotencyInFlight: 409,
    errors.StorageLimitReached: 507,
    errors.GenerationTimeout: 504,
    errors.StartDeadlineMissed: 504,
    errors.GenerationFailed: 500,
    errors.Cancelled: 409,
    errors.StoreFull: 507,
    errors.DatabaseUnavailable: 503,
    errors.ImageStoreUnavailable: 503,
}


def rate_headers(limit: int, remaining: int, reset_s: float) -> dict[str, str]:
    """Return the headers of a rate limit in OpenAI's form, with the seconds until its reset such as `1.500s`."""
    return {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-reset-requests": f"{reset_s:.3f}s",
    }


#: Headers by error class, found in the same way as the status.
HEADERS: dict[type[errors.Error], Callable[[Any], dict[str, str]]] = {
    errors.Error: lambda _: {},
    errors.Unauthorized: lambda _: {"www-authenticate": "Bearer"},
    errors.RateLimited: lambda error: rate_headers(error.limit, 0, error.retry_after_s),
}

#: The platform's messages for errors that the web framework raises, by status.
FRAMEWORK_MESSAGES = {
    404: "Not Found: there is nothing at this path",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Payload Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
}

#: Most headers of a request, and the longest path and query in bytes.
MAX_HEADERS, MAX_URL = 128, 16 * 1024

_DESCRIPTIONS = {
    400: "The request is invalid; the message names every invalid field.",
    401: "The API key is missing or invalid.",
    403: "The key lacks permission or has reached its spend limit, or the account has no credits.",
    404: "The resource does not exist, or it belongs to another account.",
    408: "The body was not received in time.",
    409: "The current state forbids it, or a request with this Idempotency-Key is in progress; see Retry-After.",
    413: "The body is too large.",
    415: "The body is not application/json, or it is compressed.",
    422: "The Idempotency-Key was used for another request.",
    429: "The queue is full, or the key's rate limit is reached; see Retry-After.",
    500: "The job failed.",
    503: "The server is stopping, or its image store can't be reached; see Retry-After.",
    507: "The images fill the space that the operator allows, or the server's disk is full.",
    504: "The wait timed out and the job continues, or the job missed its start deadline.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route for the OpenAPI document, by status."""
    return {status: {"model": ErrorBody, "description": _DESCRIPTIONS[status]} for status in statuses}


def status_of(error: errors.Error) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def headers_of(error: errors.Error) -> dict[str, str]:
    """Return the response headers of an error."""
    headers = next(HEADERS[kind] for kind in type(error).__mro__ if kind in HEADERS)(error)
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after_s * 1000)))
    if error.retryable is not None:
        # OpenAI's clients retry 409 and 504 by default, which would generate the images twice.
        headers["x-should-retry"] = str(error.retryable).lower()
    return headers


def set_dialect(request: Request, dialect: Dialect) -> None:
    """Set the dialect of an exchange's errors; the default is the platform's dialect."""
    request.scope["allaprima.dialect"] = dialect


def _response(request: Request, status: int, message: str, code: str, headers: dict[str, str], **more: Any) -> Response:
    dialect: Dialect = request.scope.get("allaprima.dialect", AIML)
    report = ErrorReport(
        status=status,
        code=code,
        message=message,
        request_id=request_id_of(request),
        path=request.url.path,
        at=time.time(),
        **more,
    )
    return JSONResponse(dialect.error(report), status, headers)


async def known_error(request: Request, error: Exception) -> Response:
    """Return the response to an `Error`."""
    assert isinstance(error, errors.Error)  # the handler is registered for this class
    return _response(
        request,
        status_of(error),
        error.message,
        error.code,
        headers_of(error),
        problems=error.problems,
        job_id=error.job_id,
    )


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # the handler is registered for this class
    return await known_error(request, errors.InvalidRequest(*problems_of(request, error.errors())))


async def _framework_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # the handler is registered for this class
    status = error.status_code
    if status == 405 and request.method == "OPTIONS":
        # The CORS middleware answers preflight requests only.
        return Response(status_code=204, headers={"allow": ", ".join([*_methods_of(request), "OPTIONS"])})
    message, code = _named(error)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if status == 405:
        headers["allow"] = ", ".join(_methods_of(request))
    return _response(request, status, message, code, headers)


def _named(error: HTTPException) -> tuple[str, str]:
    """Return the message and the code of an error that the web framework or the HTTP parser raises."""
    status = error.status_code
    message = FRAMEWORK_MESSAGES.get(status, str(error.detail))
    if status in (408, 413, 414, 415, 431) and error.detail:
        message = f"{message}: {error.detail}"
    return message, FRAMEWORK_MESSAGES.get(status, "http_error").partition(":")[0].lower().replace(" ", "_")


def protocol_error(error: HTTPException, code: str | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the body and the headers of the response to a request that no application sees.

    code: the error's code; None: the one of the status.
    """
    message, named = _named(error)
    report = ErrorReport(
        status=error.status_code, code=code or named, message=message, request_id=str(uuid7()), path="", at=time.time()
    )
    return AIML.error(report), dict(error.headers or {})


def _methods_of(request: Request) -> list[str]:
    """Return the methods of a path, of which the web framework lists only those of the first route."""
    routes = request.app.router.routes
    found = []
    for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"):
        # HEAD is allowed wherever GET is.
        scope = dict(request.scope) | {"method": "GET" if method == "HEAD" else method}
        if any(route.matches(scope)[0] == Match.FULL for route in routes):
            found.append(method)
    return found


class BoundsMiddleware:
    """Refuses requests with too many headers or a long URL, and paths with a NUL, at which there can be nothing.

    The HTTP parser bounds the size of the whole head.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] == "http" and (error := _out_of_bounds(scope)):
            response = await _framework_error(Request(scope), error)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _out_of_bounds(scope: Scope) -> HTTPException | None:
    if len(scope["headers"]) > MAX_HEADERS:
        return HTTPException(431, f"a request may have at most {MAX_HEADERS} headers")
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_URL:
        return HTTPException(414, f"a URL may have at most {MAX_URL} bytes")
    if "\0" in scope["path"]:
        # Neither the database nor the file system has such a name.
        return HTTPException(404)
    return None


class ServerErrorMiddleware:
    """Sends the response to an unexpected error.

    The web framework's own handler runs outside of all other middleware, so its response would have neither the request
    id nor the CORS headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        has_started = False

        async def send_noting(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except ClientDisconnect:
            # The client closed the connection while it sent the request, so it can receive no response.
            logger.debug("a client disconnected during its request")
        except Exception as exc:
            if has_started or scope["type"] != "http":
                raise
            request = Request(scope)
            logger.exception("unexpected error at %s", request.url.path, exc_info=exc)
            response = _response(request, 500, "Internal server error", "internal_error", {})
            await response(scope, receive, send)


def add_error_handlers(app: FastAPI) -> None:
    """Install the error handlers. The caller must add other middleware afterwards."""
    app.add_exception_handler(errors.Error, known_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_middleware(ServerErrorMiddleware)
    app.add_middleware(BoundsMiddleware)
