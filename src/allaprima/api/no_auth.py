"""Guards a server without authentication, whose only protection is who can send it requests.

It listens on a loopback address. What reaches it from there and is refused: a web page of another origin (CSRF), a web
page whose host name resolves to this machine (DNS rebinding), and what a proxy passes on from other machines.
Sources: Fetch Metadata Request Headers (W3C), RFC 6454 (Origin), RFC 7239 (Forwarded).
"""

import re

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allaprima.api.errors import known_error
from allaprima.api.http.addresses import OWN_SITES, forwarding_header, is_client_local
from allaprima.domain.addresses import is_loopback_name
from allaprima.errors import ForeignRequest

#: A Host header without surprises: a name or an address, and a port.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.-]+)(:[0-9]{1,5})?")
#: Pages to which another site may link; what they do is up to the user.
_PAGES = re.compile(r"/|/docs|/files/.*")


class NoAuthGuard:
    """Refuses foreign requests, and sends no CORS headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if (problem := problem_of(request)) is not None:
            response = await known_error(request, ForeignRequest(f"{problem}. {ForeignRequest.__doc__}"))
            await response(scope, receive, send)
            return

        async def send_closed(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["access-control-allow-origin"]
            await send(message)

        await self._app(scope, receive, send_closed)


def problem_of(request: Request) -> str | None:
    """Return what is foreign about a request, such as `Origin https://other.example`; None if nothing is."""
    if not is_client_local(request):
        return "The client is another machine"
    hosts = request.headers.getlist("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]) or not is_loopback_name(hosts[0]):
        return f"Host {_shown(hosts)} is not a loopback name, such as localhost or 127.0.0.1"
    if (name := forwarding_header(request)) is not None:
        return f"The header {name} shows that a proxy passed the request on"
    origins = request.headers.getlist("origin")
    if any(origin.lower() != f"http://{hosts[0]}".lower() for origin in origins):
        return f"Origin {_shown(origins)} is not this server"
    sites = request.headers.getlist("sec-fetch-site")
    if any(site not in OWN_SITES for site in sites) and not _is_followed_link(request):
        return f"Sec-Fetch-Site {_shown(sites)} shows that the page of another site sent the request"
    return None


def _is_followed_link(request: Request) -> bool:
    """Whether the user opens a page in a tab by a link of another site, which can't read the page."""
    is_tab = (request.headers.get("sec-fetch-mode"), request.headers.get("sec-fetch-dest")) == ("navigate", "document")
    return request.method == "GET" and is_tab and _PAGES.fullmatch(request.scope["path"]) is not None


def _shown(values: list[str]) -> str:
    return ascii(", ".join(values)[:100])
