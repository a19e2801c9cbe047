"""The base URL of links in a response: the configured public URL, else the host that the client named."""

import logging
import re
from functools import lru_cache

from fastapi import Request

from allaprima.api.http.addresses import is_client_in
from allaprima.domain.addresses import parse_address
from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.settings import ServerSettings

logger = logging.getLogger(__name__)

#: A Host header: a name, an IPv4 address or an IPv6 address in brackets, and a port. Source: RFC 3986, section 3.2.
_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{1,5}))?")
#: A path below which a proxy serves this server.
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]{1,100}){1,10}/?")
MAX_PORT = 65535
_FORWARDED = ("x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix")


def base_url(request: Request, settings: ServerSettings) -> str:
    """Return the base URL, without a slash at the end.

    X-Forwarded headers count only if a trusted proxy sent them. Raises `InvalidRequest` for a host that is not
    allowed.
    """
    if settings.public_url:
        return settings.public_url
    is_trusted = is_client_in(request, settings.trusted_proxies)
    if not is_trusted and any(name in request.headers for name in _FORWARDED):
        _warn_of_untrusted_proxy(request.client.host if request.client else "an unknown address")
    # A request in HTTP/1.0 may name no host; then its URL has the address of the server.
    scheme, host, prefix = request.url.scheme, request.headers.get("host", request.url.netloc), ""
    if is_trusted:
        scheme = _first(request.headers.get("x-forwarded-proto")).lower() or scheme
        host = _first(request.headers.get("x-forwarded-host")) or host
        prefix = _first(request.headers.get("x-forwarded-prefix")).rstrip("/")
    name = _name_in(host)
    allowed = {allowed.lower().removesuffix(".") for allowed in settings.allowed_hosts}
    if name is None or scheme not in ("http", "https") or not ("*" in allowed or name in allowed):
        raise InvalidRequest(FieldProblem("Host", f"{host[:300]!a} is not an allowed host name"))
    if prefix and not _PREFIX.fullmatch(prefix):
        raise InvalidRequest(FieldProblem("X-Forwarded-Prefix", f"{prefix[:300]!a} is not a path such as /images"))
    return f"{scheme}://{host}{prefix}"


@lru_cache(maxsize=1024)
def _warn_of_untrusted_proxy(address: str) -> None:
    """Log once for an address that its headers are ignored."""
    logger.warning(
        "ignored the X-Forwarded headers of %s, so links do not use them; if this is your proxy, set "
        "ALLAPRIMA_SERVER__TRUSTED_PROXIES or --public-url",
        address,
    )


def _name_in(host: str) -> str | None:
    """Return the name in a Host header, in lower case and without a dot at the end; None if the header is invalid."""
    found = _HOST.fullmatch(host)
    if found is None or (found["ipv6"] is not None and parse_address(found["ipv6"]) is None):
        return None
    if found["port"] is not None and not 0 < int(found["port"]) <= MAX_PORT:
        return None
    return found["name"].lower().removesuffix(".") or None


def _first(value: str | None) -> str:
    return (value or "").partition(",")[0].strip()
