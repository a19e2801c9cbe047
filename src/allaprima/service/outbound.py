"""Guards requests to URLs that clients name: only public addresses, and the networks that the operator allows.

A name is resolved once, each of its addresses is checked, and the connection goes to one of them, so that a name which
resolves differently the second time (DNS rebinding) gains nothing. Source of the ranges: the IANA
special-purpose registries, as Python's `ipaddress` has them.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

#: A name to its addresses. Raises `OSError` when it has none.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

PORTS = {"http": 80, "https": 443}
MAX_URL = 2000
_LOOKUPS = ThreadPoolExecutor(4, thread_name_prefix="lookup")
#: IPv6 ranges that embed an IPv4 address, which would not be checked: IPv4-compatible, 6to4, Teredo and NAT64.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_WRAPPERS = (
    IPv6Network("::/96"),
    IPv6Network("2002::/16"),
    IPv6Network("2001::/32"),
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A checked address to connect to."""

    #: The URL with the address in place of the name.
    url: str
    #: The host name of the URL, for TLS.
    host: str
    #: For the Host header: with the port, where the URL names one.
    authority: str


class UrlRefused(Exception):
    """A URL that must not be called, and why."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return every address of a name, as the system resolves it."""
    # In threads of its own: a dead name server must not block the threads that flush images to the disk.
    find = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, find)
    return [str(address[0]) for *_, address in found]


class OutboundUrls:
    """Resolves URLs that clients name, and refuses those that lead into private networks."""

    def __init__(self, allowed: Sequence[str], resolve: Resolve = resolve) -> None:
        """allowed: private networks that may be called, on any port. resolve: looks names up."""
        self._allowed = [ip_network(network, strict=False) for network in allowed]
        self._lookup = resolve

    def check(self, url: str) -> SplitResult:
        """Return a URL's parts if its shape may be called. Raises `UrlRefused`."""
        if (
            len(url) > MAX_URL
            or not url.isascii()
            or any(not " " < character < "\x7f" or character == "\\" for character in url)
        ):
            raise UrlRefused(f"must be a URL of at most {MAX_URL} ASCII characters without spaces")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise UrlRefused("is not a URL") from None
        if parts.scheme not in PORTS or not parts.hostname:
            raise UrlRefused("must start with https:// or http:// and a host name")
        if not _is_name(parts.hostname):
            raise UrlRefused("must have a host name that can be looked up")
        if parts.username is not None or parts.password is not None:
            raise UrlRefused("must not contain a user name or password")
        if port not in (None, *PORTS.values()) and not self._allowed:
            raise UrlRefused("must go to port 80 or 443")
        return parts

    async def resolve(self, url: str) -> Target:
        """Return where to connect. Raises `UrlRefused`, or `OSError` when the name can't be resolved."""
        parts = self.check(url)
        host = parts.hostname or ""
        port = parts.port or PORTS[parts.scheme]
        found = [_parse(address) for address in await self._lookup(host, port)]
        if not found:
            raise OSError(f"{host} has no address")
        is_usual_port = port in PORTS.values()
        for address in found:
            if not (self._is_allowed(address) or (is_usual_port and is_public(address))):
                raise UrlRefused(f"leads to {address}, which is not on the public internet")
        chosen = found[0]
        shown = f"[{chosen}]" if isinstance(chosen, IPv6Address) else str(chosen)
        named = f"[{host}]" if ":" in host else host
        authority = named if parts.port is None else f"{named}:{parts.port}"
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return Target(f"{parts.scheme}://{shown}:{port}{path}", host, authority)

    def _is_allowed(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._allowed if network.version == address.version)


def _is_name(host: str) -> bool:
    """Whether a resolver accepts the host: no empty label, and none that is too long."""
    if ":" in host:
        return True
    labels = host.removesuffix(".").split(".")
    return len(host) < 254 and all(0 < len(label) < 64 for label in labels)


def _parse(text: str) -> IPv4Address | IPv6Address:
    """Return an address; an IPv4-mapped IPv6 address as IPv4."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one host's on the public internet."""
    if isinstance(address, IPv6Address):
        is_unicast = address in _GLOBAL_UNICAST
        if not is_unicast or any(address in network for network in _WRAPPERS):
            return False
    return address.is_global and not address.is_multicast
