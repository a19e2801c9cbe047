"""IP addresses and networks, in one spelling for each."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
#: The bits of an IPv6 address before an IPv4 address that it contains.
MAPPED_BITS = 96


def parse_network(text: str) -> Network:
    """Return the network in a text; an address is the network of one address.

    A network of IPv4-mapped IPv6 addresses is its IPv4 network, and the zone of a link-local address is dropped, as in
    `parse_address`. Raises ValueError for a text that is none.
    """
    address, slash, bits = text.partition("/")
    network = ip_network(address.partition("%")[0] + slash + bits, strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < MAPPED_BITS:
        return network
    return ip_network((mapped, network.prefixlen - MAPPED_BITS))


def parse_address(text: str) -> Address | None:
    """Return the address in a text, or None if it is none.

    An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) is its IPv4 address: a socket that accepts both families
    reports IPv4 clients in that form. The zone of a link-local address is dropped.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def is_loopback_name(host: str) -> bool:
    """Return whether a Host header, with or without a port, names the machine itself."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    name = name.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = parse_address(name)
    return address is not None and address.is_loopback
