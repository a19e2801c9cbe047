"""Questions about the address of a client, and whether its request came through a proxy."""

from fastapi import Request

from allaprima.domain.addresses import parse_address, parse_network

#: Values of Sec-Fetch-Site for a request that no page of another site caused.
OWN_SITES = ("none", "same-origin")
#: Headers that proxies add, apart from those that begin with `x-forwarded-`.
_FORWARDING = ("forwarded", "via", "x-real-ip", "x-client-ip", "x-original-host", "cf-connecting-ip", "true-client-ip")


def is_client_in(request: Request, networks: tuple[str, ...]) -> bool:
    """Return whether the client's address is in one of the networks."""
    return request.client is not None and is_address_in(request.client.host, networks)


def is_address_in(text: str, networks: tuple[str, ...]) -> bool:
    """Return whether an IP address, in any notation, is in one of the networks."""
    address = parse_address(text)
    return address is not None and any(address in parse_network(one) for one in networks)


def is_client_local(request: Request) -> bool:
    """Return whether the client is on the server's own machine, by its address."""
    address = parse_address(request.client.host) if request.client else None
    return address is not None and address.is_loopback


def forwarding_header(request: Request) -> str | None:
    """Return the name of a header that a proxy added to a request, or None."""
    return next((name for name in request.headers if name in _FORWARDING or name.startswith("x-forwarded-")), None)
