"""Answers HEAD wherever GET is allowed: with the status and the headers of GET, and no body (RFC 9110, 9.3.2)."""

import asyncio
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Serves a HEAD request as GET, and ends it when the headers have been sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        has_headers = asyncio.Event()

        async def send_headers(message: Message) -> None:
            if message["type"] != "http.response.start":
                return
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            has_headers.set()

        # The scope is shared with the outer middleware, which reads the route from it.
        scope["method"], scope["allaprima.is_head"] = "GET", True
        try:
            await self._until(has_headers, asyncio.ensure_future(self._app(scope, receive, send_headers)))
        finally:
            scope["method"] = "HEAD"

    async def _until(self, has_headers: asyncio.Event, answer: "asyncio.Future[None]") -> None:
        """Wait for the headers or for the end of an answer. A stream would otherwise continue without a reader."""
        seen = asyncio.ensure_future(has_headers.wait())
        try:
            either: set[asyncio.Future[Any]] = {answer, seen}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            seen.cancel()
            if not answer.done():
                answer.cancel()
        with suppress(asyncio.CancelledError):
            await answer
