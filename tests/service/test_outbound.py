"""Outbound URLs: private addresses are refused in every notation, and the checked address is the one called."""

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from allaprima.service.outbound import OutboundUrls, UrlRefused, is_public
from allaprima.service.outbound import resolve as system_resolve
from tests.service.urls import NAMES, URLS

PUBLIC = ("93.184.216.34", "2606:4700::1111")


async def resolve(host: str, port: int) -> Sequence[str]:
    """Resolve addresses by the system and names by the table; no request leaves the machine."""
    if host in NAMES:
        return NAMES[host]
    if host == "public.example":
        return PUBLIC
    if host[:1].isdigit() or ":" in host:
        return await system_resolve(host, port)
    raise OSError(f"{host} is not known")


def test_url_table_has_at_least_200_entries() -> None:
    assert len(set(URLS)) >= 200


@pytest.mark.parametrize("url", sorted(set(URLS)))
async def test_url_to_private_address_is_refused(url: str) -> None:
    with pytest.raises((UrlRefused, OSError)):
        await OutboundUrls((), resolve).resolve(url)


async def test_public_name_is_pinned_to_checked_address() -> None:
    target = await OutboundUrls((), resolve).resolve("https://public.example/hook?a=1&b=2")
    assert target.url == "https://93.184.216.34:443/hook?a=1&b=2"
    assert (target.host, target.authority) == ("public.example", "public.example")


async def test_name_is_resolved_once() -> None:
    asked: list[str] = []

    async def rebinding(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    target = await OutboundUrls((), rebinding).resolve("http://rebind.example/")
    assert (target.url, asked) == ("http://93.184.216.34:80/", ["rebind.example"])


@pytest.mark.parametrize(
    ("networks", "url", "is_allowed"),
    [
        (["127.0.0.0/8"], "http://127.0.0.1:9000/", True),
        (["10.0.0.0/8"], "http://127.0.0.1/", False),
        (["10.0.0.0/8"], "http://93.184.216.34:9000/", False),
        (["10.0.0.0/8"], "http://93.184.216.34/", True),
        (["::1/128"], "http://[::1]:9000/", True),
        (["127.0.0.0/8"], "http://mixed.example/", True),
        (["10.0.0.0/8"], "http://mixed.example/", False),
    ],
)
async def test_networks_allowed_by_operator_can_be_called(networks: list[str], url: str, is_allowed: bool) -> None:
    urls = OutboundUrls(networks, resolve)
    if is_allowed:
        await urls.resolve(url)
    else:
        with pytest.raises(UrlRefused):
            await urls.resolve(url)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_can_be_called(address: str) -> None:
    assert is_public(ip_address(address))


async def test_system_resolver_resolves_loopback() -> None:
    assert set(await asyncio.wait_for(system_resolve("127.0.0.1", 80), 10)) == {"127.0.0.1"}
