"""Receives the rest of a request's body before the response is sent.

Many clients send the whole body before they read the response. If the server closed the connection with unread data,
such a client would see a reset instead of the response: of a body that is too large, or of a missing key.
"""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Bounds of what is received and discarded after the application has answered. Beyond them the connection is closed.
MAX_DISCARDED_BYTES = 64 * 2**20
MAX_DISCARD_S = 10.0


class DrainMiddleware:
    """Discards the body that the application did not read, within bounds, and then sends the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(Headers(scope=scope), receive)

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and not await body.discard():
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app(scope, body.receive, send_after_body)


class _Body:
    """The body of a request, of which the application may read any part."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        self._receive = receive
        self._is_received = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
        #: Whether the client sends the body only after the server has asked for it, which the first `receive` does.
        self._is_awaited = headers.get("expect", "").lower() == "100-continue"

    async def receive(self) -> Message:
        """Receive the next message for the application."""
        self._is_awaited = False
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_received = True
        return message

    async def discard(self) -> bool:
        """Receive the rest, and return whether the body is complete."""
        discarded = 0
        if not self._is_awaited:
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_DISCARD_S):
                    while not self._is_received and discarded <= MAX_DISCARDED_BYTES:
                        discarded += len((await self.receive()).get("body", b""))
        return self._is_received
