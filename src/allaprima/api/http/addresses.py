"""Questions about the address of a client and about host names."""

from fastapi import Request

from allaprima.domain.addresses import parse_address, parse_network


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


def is_loopback_name(host: str) -> bool:
    """Return whether a Host header, with or without a port, names the machine itself."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    name = name.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = parse_address(name)
    return address is not None and address.is_loopback
