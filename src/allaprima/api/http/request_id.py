"""An id for every exchange, under the names that the platforms' clients read, and the client's own id back."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

#: What a client may call its request; anything else is dropped.
CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

#: Headers that pages of other origins may read.
EXPOSED_HEADERS = (
    "x-inference-id",
    "x-request-id",
    "x-fal-request-id",
    "x-client-request-id",
    "x-aimlapi-credits-used",
    "x-aimlapi-usd-spent",
    "x-model",
    "x-ignored-fields",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "location",
    "etag",
    "idempotent-replayed",
    "server-timing",
)

#: The headers that carry an exchange's id.
ID_HEADERS = ("x-inference-id", "x-request-id", "x-fal-request-id")


def client_request_id(request: Request) -> str | None:
    """Return what the client calls its request, unless it is a name that can't be had."""
    client_id = request.headers.get("x-client-request-id", "")
    return client_id if CLIENT_ID.fullmatch(client_id) else None


def call_it(request: Request, inference_id: str) -> None:
    """Give the exchange another id: that of the request whose answer it repeats."""
    request.scope["allaprima.inference_id"] = inference_id


class TracingMiddleware:
    """Gives each exchange its id and writes the tracing headers on the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["allaprima.inference_id"] = str(uuid7())
        client_id = Headers(scope=scope).get("x-client-request-id", "")

        async def send_traced(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in ID_HEADERS:
                    headers[name] = scope["allaprima.inference_id"]
                if CLIENT_ID.fullmatch(client_id):
                    headers["x-client-request-id"] = client_id
            await send(message)

        await self._app(scope, receive, send_traced)
