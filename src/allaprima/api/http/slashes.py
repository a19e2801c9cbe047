"""Paths with repeated slashes, which clients make when they join a base URL that ends with one by hand."""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_REPEATED = re.compile("/{2,}")


class SlashMiddleware:
    """Serves a path with repeated slashes as the path without them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] == "http" and "//" in scope["path"]:
            scope = {**scope, "path": _REPEATED.sub("/", scope["path"])}
        await self._app(scope, receive, send)
