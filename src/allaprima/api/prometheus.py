"""`GET /metrics` for Prometheus: available to this machine only, or to clients with the metrics token."""

import hmac
import logging
import time

from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allaprima.api.deps import ServiceDep, SettingsDep
from allaprima.api.http.addresses import OWN_SITES, forwarding_header, is_client_local
from allaprima.domain.addresses import is_loopback_name
from allaprima.errors import Forbidden
from allaprima.metrics import CONTENT_TYPE, Metrics
from allaprima.settings import ServerSettings

#: The access log: one line per exchange, with the route's pattern but no part of the request.
access = logging.getLogger("allaprima.access")
router = APIRouter()
#: Path of the metrics, which web pages of other origins can't read.
PATH = "/metrics"


@router.get(PATH, include_in_schema=False)
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
    is_proxied = forwarding_header(request) is not None
    # A web page whose host name resolves to this machine (DNS rebinding) has a local address, but names its own host.
    is_own_host = is_loopback_name(request.headers.get("host", ""))
    is_page = "origin" in request.headers or request.headers.get("sec-fetch-site", "none") not in OWN_SITES
    return is_client_local(request) and is_own_host and not is_page and not is_proxied


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
