"""Restricts requests to URLs of clients (SSRF): only public addresses and networks that the operator allows.

A host name is resolved once. All its addresses are checked and the connection uses one of them, which prevents DNS
rebinding. Source of the address ranges: the IANA special-purpose registries, in Python's `ipaddress`.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, IPv6Network
from urllib.parse import SplitResult, urlsplit

from allaprima.domain.addresses import Address, parse_address, parse_network

#: Returns the addresses of a host name and a port. Raises `OSError` if there is none.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

PORTS = {"http": 80, "https": 443}
MAX_URL = 2000
#: Names the setting that opens private networks, in refusals.
_ADVICE = "the operator can allow a private network with ALLAPRIMA_WEBHOOKS__ALLOWED_NETWORKS"
#: As many threads as concurrent deliveries, so that slow name servers of one account delay no other account.
_LOOKUPS = ThreadPoolExecutor(128, thread_name_prefix="lookup")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
#: IPv6 ranges that embed an unchecked IPv4 address: IPv4-compatible, 6to4, Teredo and NAT64.
_EMBEDDED_IPV4 = (
    IPv6Network("::/96"),
    IPv6Network("2002::/16"),
    IPv6Network("2001::/32"),
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A checked address to connect to."""

    #: The URL with the address instead of the host name.
    url: str
    #: The host name of the URL, for TLS.
    host: str
    #: The value of the Host header, with the port if the URL has one.
    authority: str


class UrlRefused(Exception):
    """The server must not call this URL. The message is the reason, without a subject."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return all addresses of a host name from the system's resolver. Raises `OSError`."""
    # A separate thread pool, because a slow name server must not block the threads that flush images to the disk.
    find = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, find)
    return [str(address[0]) for *_, address in found]


class OutboundUrls:
    """Resolves URLs of clients, and refuses those that resolve to private networks."""

    def __init__(self, allowed: Sequence[str], resolve: Resolve = resolve) -> None:
        """allowed: private networks that may be called, on any port. resolve: resolves host names."""
        self._allowed = [parse_network(network) for network in allowed]
        self._lookup = resolve

    def check(self, url: str) -> SplitResult:
        """Return the parts of a URL without resolving its host. Raises `UrlRefused` for a form that is not allowed."""
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
            raise UrlRefused("must have a valid host name")
        if parts.username is not None or parts.password is not None:
            raise UrlRefused("must not contain a user name or password")
        if port not in (None, *PORTS.values()) and not self._allowed:
            raise UrlRefused(f"must use port 80 or 443, because private networks are closed; {_ADVICE}")
        literal = parse_address(parts.hostname)
        if literal is not None and not self._is_open(literal, port or PORTS[parts.scheme]):
            raise UrlRefused(f"must not lead to {literal}, which is not a public address; {_ADVICE}")
        return parts

    async def resolve(self, url: str) -> Target:
        """Return the address to connect to. Raises `UrlRefused`, or `OSError` if the host name can't be resolved."""
        parts = self.check(url)
        host = parts.hostname or ""
        port = parts.port or PORTS[parts.scheme]
        found = [one for address in await self._lookup(host, port) if (one := parse_address(address)) is not None]
        if not found:
            raise OSError(f"{host} has no address")
        for address in found:
            if not self._is_open(address, port):
                raise UrlRefused(f"resolves to {address}, which is not a public address; {_ADVICE}")
        chosen = found[0]
        shown = f"[{chosen}]" if isinstance(chosen, IPv6Address) else str(chosen)
        named = f"[{host}]" if ":" in host else host
        authority = named if parts.port is None else f"{named}:{parts.port}"
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return Target(f"{parts.scheme}://{shown}:{port}{path}", host, authority)

    def _is_open(self, address: Address, port: int) -> bool:
        """Whether a port of an address may be called."""
        is_allowed = any(address in network for network in self._allowed if network.version == address.version)
        return is_allowed or (port in PORTS.values() and is_public(address))


def _is_name(host: str) -> bool:
    """Whether a resolver accepts the host: it has no empty label and none of more than 63 characters."""
    if ":" in host:
        return True
    labels = host.removesuffix(".").split(".")
    return len(host) < 254 and all(0 < len(label) < 64 for label in labels)


def is_public(address: Address) -> bool:
    """Whether an address is a unicast address on the public internet."""
    if isinstance(address, IPv6Address):
        is_unicast = address in _GLOBAL_UNICAST
        if not is_unicast or any(address in network for network in _EMBEDDED_IPV4):
            return False
    return address.is_global and not address.is_multicast
