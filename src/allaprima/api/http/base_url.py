"""The base URL of links in a response: the configured public URL, else the host that the client named."""

import ipaddress

from fastapi import Request

from allaprima.errors import FieldProblem, InvalidRequest
from allaprima.settings import ServerSettings


def base_url(request: Request, settings: ServerSettings) -> str:
    """Return the base URL, without a slash at the end.

    X-Forwarded headers count only if a trusted proxy sent them. Raises `InvalidRequest` for a host that is not
    allowed.
    """
    if settings.public_url:
        return settings.public_url
    scheme, host = request.url.scheme, request.headers.get("host", "")
    if request.client and _is_trusted(request.client.host, settings.trusted_proxies):
        scheme = _first(request.headers.get("x-forwarded-proto")) or scheme
        host = _first(request.headers.get("x-forwarded-host")) or host
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    is_valid = bool(host) and not set(host) & set("/\\@?# <>\"'") and scheme in ("http", "https")
    allowed = {allowed.lower() for allowed in settings.allowed_hosts}
    if not is_valid or not ("*" in allowed or name.lower() in allowed):
        raise InvalidRequest(FieldProblem("Host", f"{host!a} is not an allowed host name"))
    return f"{scheme}://{host}"


def _first(value: str | None) -> str:
    return (value or "").partition(",")[0].strip()


def _is_trusted(address: str, proxies: tuple[str, ...]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip in ipaddress.ip_network(proxy, strict=False) for proxy in proxies)
