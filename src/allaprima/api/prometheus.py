"""`GET /metrics` for Prometheus: available to this machine only, or to clients with the metrics token."""

import hmac
import ipaddress
import logging
import time

from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allaprima.api.deps import ServiceDep, SettingsDep
from allaprima.errors import Forbidden
from allaprima.metrics import CONTENT_TYPE, Metrics
from allaprima.settings import ServerSettings

#: The access log: one line per exchange, with the route's pattern but no part of the request.
access = logging.getLogger("allaprima.access")
router = APIRouter()


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, service: ServiceDep, settings: SettingsDep) -> Response:
    """Return all metrics. Raises `Forbidden` for another machine, or for a wrong token if one is set."""
    if not _may_read(request, settings):
        raise Forbidden("Metrics are available to the server's own machine only, or with its metrics token")
    return Response(service.metrics.text((await service.job_records.load()).queued), media_type=CONTENT_TYPE)


def _may_read(request: Request, settings: ServerSettings) -> bool:
    if settings.metrics_token is not None:
        given = request.headers.get("authorization", "").partition(" ")[2].strip()
        return hmac.compare_digest(given.encode(), settings.metrics_token.encode())
    # Behind a proxy on this machine, every client has a local address.
    is_proxied = any(name in request.headers for name in ("x-forwarded-for", "forwarded", "via"))
    try:
        is_local = request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        is_local = False
    return is_local and not is_proxied


class AccessLogMiddleware:
    """Logs and counts responses by the route's pattern, so that no id becomes a label of a metric."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            seconds = time.perf_counter() - began
            self._metrics.answered(route, status or 499, seconds)
            fields = {
                "method": scope["method"],
                "route": route,
                "status": status or 499,
                "milliseconds": round(seconds * 1000, 1),
                "inference_id": scope.get("allaprima.request_id"),
            }
            access.info("%s %s %d", scope["method"], route, status or 499, extra=fields)
