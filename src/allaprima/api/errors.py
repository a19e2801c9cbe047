"""Errors to HTTP: the only table of statuses, and the body that every error has.

The body is the hosted platform's five members, and beside them the `error` object that OpenAI's clients read.
"""

import logging
import math
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allaprima import errors
from allaprima.api.deps import inference_id_of

logger = logging.getLogger(__name__)

#: Error class to status. A class that is not named has its nearest ancestor's.
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
    errors.GenerationTimeout: 504,
    errors.StartDeadlineMissed: 504,
    errors.GenerationFailed: 500,
    errors.Cancelled: 409,
}

#: Status to the type that OpenAI's clients know, for errors of the web framework too.
OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

#: The platform's words for what the framework refuses.
FRAMEWORK_MESSAGES = {
    404: "Not Found: there is nothing at this path",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Payload Too Large",
    415: "Unsupported Media Type",
}


class ErrorObject(BaseModel):
    """What OpenAI's clients read."""

    message: str
    type: str
    param: str | None = Field(description="The first field at fault, as the client named it.")
    code: str


class ErrorBody(BaseModel):
    """The body of every error."""

    requestId: str = Field(description="The exchange's id, also in the header x-inference-id.")
    statusCode: int
    timestamp: str = Field(description="ISO 8601, milliseconds, UTC.")
    path: str
    message: str
    error: ErrorObject
    job_id: str | None = Field(None, description="With 504, and 503 for a job that was accepted: the job that goes on.")


_WORDS = {
    400: "Fields that can't be done as asked, all of them.",
    401: "No good key.",
    403: "A good key, but not for this; or no credits, or no room in the key's spend limit.",
    404: "There is no such thing, or it is another account's.",
    408: "The body did not arrive in time.",
    409: "It does not fit what is there; or an equal request is not answered yet, see Retry-After.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    422: "The Idempotency-Key was used for another request.",
    429: "The queue is full, or the key's limit is reached; see Retry-After.",
    500: "The job failed.",
    503: "The server is stopping; see Retry-After.",
    504: "The wait is over, and the job goes on; or the job did not start in time.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how the OpenAPI document shows the errors of a route."""
    return {status: {"model": ErrorBody, "description": _WORDS[status]} for status in statuses}


def status_of(error: errors.Error) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def answer(
    request: Request,
    status: int,
    message: str,
    code: str,
    *,
    param: str | None = None,
    headers: dict[str, str] | None = None,
    extra: dict[str, Any] | None = None,
) -> JSONResponse:
    """Return an error as every client of ours expects it."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    kind = OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    content = {
        "requestId": inference_id_of(request),
        "statusCode": status,
        "timestamp": now,
        "path": printable(request.url.path),
        "message": printable(message),
        "error": {"message": printable(message), "type": kind, "param": param, "code": code},
    }
    return JSONResponse(content | (extra or {}), status, headers)


def printable(text: str) -> str:
    """Return text with what no UTF-8 answer can carry (lone surrogates) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def rate_headers(limit: int, remaining: int, reset_s: float) -> dict[str, str]:
    """Return a rate limit as OpenAI's clients read it; seconds are written as in `1.5s`."""
    return {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-reset-requests": f"{reset_s:.3f}s",
    }


_FINAL = (errors.GenerationTimeout, errors.StartDeadlineMissed, errors.Cancelled, errors.Conflict)


async def _our_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.Error)
    status = status_of(error)
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}
    message, param = error.message, None
    if isinstance(error, errors.InvalidRequest):
        message = f"Body validation error! {message}"
        param = printable(error.problems[0].field) if error.problems else None
    if isinstance(error, errors.Unauthorized):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, errors.Busy):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["retry-after-ms"] = str(max(1, math.ceil(error.retry_after_s * 1000)))
    if isinstance(error, errors.RateLimited):
        headers |= rate_headers(error.limit, 0, error.retry_after_s)
    if isinstance(error, _FINAL):
        # Clients repeat 409 and 504 unless told not to, and would be painted for twice.
        headers["x-should-retry"] = "false"
    if isinstance(error, errors.IdempotencyInFlight):
        headers["x-should-retry"] = "true"
    if isinstance(error, errors.GenerationTimeout):
        message = "Generation timeout"
        extra["job_id"] = error.job_id
    if isinstance(error, errors.Draining) and error.job_id is not None:
        # The job was accepted, and is painted at the next start; a request that is repeated would be another one.
        headers["x-should-retry"] = "false"
        extra["job_id"] = error.job_id
    if isinstance(error, errors.Busy | errors.OutOfCredits | errors.KeyLimitReached):
        request.app.state.metrics.refused(error.code)
    return answer(request, status, message, error.code, param=param, headers=headers, extra=extra)


async def _framework_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    if status == 405 and request.method == "OPTIONS":
        # The framework answers only a browser's own preflights; anyone may ask what a path takes.
        return Response(status_code=204, headers={"allow": ", ".join([*_methods_of(request), "OPTIONS"])})
    message = FRAMEWORK_MESSAGES.get(status, str(error.detail))
    if status in (408, 413, 415) and error.detail:
        message = f"{message}: {error.detail}"
    code = FRAMEWORK_MESSAGES.get(status, "http_error").partition(":")[0].lower().replace(" ", "_")
    headers = dict(error.headers or {})
    if status == 405:
        headers["allow"] = ", ".join(_methods_of(request))
    return answer(request, status, message, code, headers=headers)


def _methods_of(request: Request) -> list[str]:
    """Return what a path takes; the framework names only what the first of its routes does."""
    routes = request.app.router.routes
    found = []
    for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"):
        scope = dict(request.scope) | {"method": method}
        if any(route.matches(scope)[0] == Match.FULL for route in routes):
            found.append(method)
    return found


class UnforeseenMiddleware:
    """Answers what nobody foresaw. The framework's own handler would do so outside of all other middleware, where
    the answer gets neither the tracing headers nor those that let a page read it.
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
            # Gone in the middle of its request: there is nobody to answer.
            logger.debug("a client went away")
        except Exception as exc:
            if has_started or scope["type"] != "http":
                raise
            request = Request(scope)
            logger.exception("unforeseen error at %s", request.url.path, exc_info=exc)
            response = answer(request, 500, "Internal server error", "internal_error")
            await response(scope, receive, send)


def add_error_handlers(app: FastAPI) -> None:
    """Let every error of the application leave in our body. To be called before other middleware is added."""
    app.add_exception_handler(errors.Error, _our_error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_middleware(UnforeseenMiddleware)
