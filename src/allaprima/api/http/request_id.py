"""An id for every exchange, under the names that the platforms' clients read, and the client's own id returned."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

#: A client's own id of its request; any other text is ignored.
CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

#: The headers that carry an exchange's id.
ID_HEADERS = ("x-inference-id", "x-request-id", "x-fal-request-id")

#: Headers that pages of other origins may read.
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
    """Return the client's own id of its request, if it sent a valid one."""
    client_id = request.headers.get("x-client-request-id", "")
    return client_id if CLIENT_ID.fullmatch(client_id) else None


def request_id_of(request: Request) -> str:
    """Return the id of an exchange, which is also the job's id when one is created."""
    request_id: str = request.scope[_KEY]
    return request_id


def set_request_id(request: Request, request_id: str) -> None:
    """Give the exchange another id: that of the request whose answer it repeats."""
    request.scope[_KEY] = request_id


class RequestIdMiddleware:
    """Gives each exchange its id, and writes it on the answer."""

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
