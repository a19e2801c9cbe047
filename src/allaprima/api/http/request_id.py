"""Sends the id of each exchange in the headers that clients read, and returns the client's own request id."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

#: The valid form of a client's own request id; other values are ignored.
CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

#: The headers that contain the id of an exchange.
ID_HEADERS = ("x-inference-id", "x-request-id", "x-fal-request-id")

#: Response headers that web pages of other origins may read (CORS).
EXPOSED_HEADERS = (
    *ID_HEADERS,
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
_KEY = "allaprima.request_id"


def client_request_id(request: Request) -> str | None:
    """Return the client's own request id, or None if it sent no valid id."""
    client_id = request.headers.get("x-client-request-id", "")
    return client_id if CLIENT_ID.fullmatch(client_id) else None


def request_id_of(request: Request) -> str:
    """Return the id of an exchange, which is also the id of a job that the exchange creates."""
    request_id: str = request.scope[_KEY]
    return request_id


def set_request_id(request: Request, request_id: str) -> None:
    """Replace the id of an exchange, for example by that of the request that it repeats."""
    request.scope[_KEY] = request_id


class RequestIdMiddleware:
    """Assigns an id to each exchange and sends it in the response headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[_KEY] = str(uuid7())
        client_id = Headers(scope=scope).get("x-client-request-id", "")

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in ID_HEADERS:
                    headers[name] = scope[_KEY]
                if CLIENT_ID.fullmatch(client_id):
                    headers["x-client-request-id"] = client_id
            await send(message)

        await self._app(scope, receive, send_with_id)
