"""IP addresses, in one spelling for each address."""

from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address


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
