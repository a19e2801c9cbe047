"""The base URL of links: the public URL, else the host that the client or a trusted proxy named."""

import httpx2
import pytest

from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.service.app import Service
from allaprima.settings import ServerSettings
from tests.databases import POSTGRESQL, SQLITE
from tests.fakes import client_of

# No test changes state that another test reads, so all tests share one service.
pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = {"model": "sketch", "prompt": "a boat", "size": "64x64"}
FORWARDED = {"x-forwarded-proto": "https", "x-forwarded-host": "images.example"}


@pytest.fixture
def service(shared: Service) -> Service:
    return shared


@pytest.fixture
def key(shared: Service) -> str:
    assert shared.first_key
    return shared.first_key


async def ask(
    service: Service,
    key: str,
    settings: ServerSettings | None = None,
    headers: dict[str, str] | None = None,
    address: str = "10.0.0.7",
) -> httpx2.Response:
    async with client_of(service, settings, key=key, address=address) as client:
        return await client.post(IMAGES_PATH, json=BODY, headers=headers)


def base_url_of(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    url = answer.json()["images"][0]["url"]
    assert answer.json()["data"][0]["url"] == url
    return url.partition("/files/")[0]


@pytest.mark.parametrize(
    "public_url", ["https://images.example", "https://images.example/", "http://images.example/api"]
)
async def test_public_url_has_precedence(service: Service, key: str, public_url: str) -> None:
    settings = ServerSettings(public_url=public_url, trusted_proxies=("10.0.0.0/8",))
    answer = await ask(service, key, settings, {"host": "other.example", "x-forwarded-host": "third.example"})
    assert base_url_of(answer) == public_url.rstrip("/")


@pytest.mark.parametrize("host", ["localhost:8000", "images.example", "192.0.2.1:80", "[::1]:8000", "[2001:db8::1]"])
async def test_link_starts_with_request_host(service: Service, key: str, host: str) -> None:
    assert base_url_of(await ask(service, key, headers={"host": host})) == f"http://{host}"


async def test_forwarded_headers_of_untrusted_clients_are_ignored(service: Service, key: str) -> None:
    assert base_url_of(await ask(service, key, headers=FORWARDED)) == "http://images.test"
    settings = ServerSettings(trusted_proxies=("192.0.2.0/24", "::1"))
    assert base_url_of(await ask(service, key, settings, FORWARDED)) == "http://images.test"


async def test_proxy_that_is_not_trusted_is_logged_once(
    service: Service, key: str, caplog: pytest.LogCaptureFixture, backend: str
) -> None:
    # An address of its own for each run, since the process remembers the logged ones.
    address = {SQLITE: "10.9.9.9", POSTGRESQL: "10.9.9.8"}[backend]
    for _ in range(2):
        await ask(service, key, headers=FORWARDED, address=address)
    [message] = [text for text in caplog.messages if address in text]
    assert "set ALLAPRIMA_SERVER__TRUSTED_PROXIES or --public-url" in message


@pytest.mark.parametrize(
    ("proxy", "address"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.0.0.1/8", "10.9.9.9"),
        ("2001:db8::/32", "2001:db8::5"),
        ("10.0.0.0/8", "::ffff:10.1.2.3"),
        ("fe80::/10", "fe80::1%eth0"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "::ffff:a00:7"),
        ("::ffff:10.0.0.0/104", "10.1.2.3"),
        ("2001:DB8:0:0::5", "2001:db8::5"),
    ],
)
async def test_forwarded_headers_of_trusted_proxy_are_used(
    service: Service, key: str, proxy: str, address: str
) -> None:
    settings = ServerSettings(trusted_proxies=(proxy,))
    assert base_url_of(await ask(service, key, settings, FORWARDED, address)) == "https://images.example"


async def test_first_of_several_forwarded_values_is_used(service: Service, key: str) -> None:
    headers = {"x-forwarded-proto": "https, http", "x-forwarded-host": "images.example, inner"}
    settings = ServerSettings(trusted_proxies=("10.0.0.7",))
    assert base_url_of(await ask(service, key, settings, headers)) == "https://images.example"


async def test_trusted_proxy_without_forwarded_headers_uses_host(service: Service, key: str) -> None:
    assert base_url_of(await ask(service, key, ServerSettings(trusted_proxies=("10.0.0.7",)))) == "http://images.test"


async def test_link_contains_prefix_of_trusted_proxy(service: Service, key: str) -> None:
    settings = ServerSettings(trusted_proxies=("10.0.0.7",))
    headers = FORWARDED | {"x-forwarded-prefix": "/art/images/"}
    assert base_url_of(await ask(service, key, settings, headers)) == "https://images.example/art/images"
    assert base_url_of(await ask(service, key, None, headers)) == "http://images.test"


@pytest.mark.parametrize("prefix", ["images", "//evil.example", "/a?b", "/a b", "/../x/.../" + "a" * 101])
async def test_invalid_prefix_of_trusted_proxy_is_refused(service: Service, key: str, prefix: str) -> None:
    settings = ServerSettings(trusted_proxies=("10.0.0.7",))
    answer = await ask(service, key, settings, FORWARDED | {"x-forwarded-prefix": prefix})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Forwarded-Prefix"


async def test_client_without_ip_address_is_not_trusted_proxy(service: Service, key: str) -> None:
    settings = ServerSettings(trusted_proxies=("0.0.0.0/0",))
    assert base_url_of(await ask(service, key, settings, FORWARDED, "testclient")) == "http://images.test"


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example/x", "a@evil.example", "evil.example?x", "evil.example#", "a b", "<b>", '"', "a\\b", "", "."),
        *(
            "a.example:99999999",
            "a.example:65536",
            "a.example:0",
            "a.example:",
            "a.example:80:80",
            ":80",
            "a.example:+1",
        ),
        *("::1", "[::1", "[::1]x", "[a.example]", "[1:2]", "a,b", "a%00b"),
    ],
)
async def test_invalid_host_name_is_refused(service: Service, key: str, host: str) -> None:
    answer = await ask(service, key, headers={"host": host})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Host"


@pytest.mark.parametrize("host", ["ours.example", "ours.example:8000", "OURS.example", "ours.example."])
async def test_allowed_host_is_accepted_with_any_port(service: Service, key: str, host: str) -> None:
    settings = ServerSettings(allowed_hosts=("ours.example",))
    assert base_url_of(await ask(service, key, settings, {"host": host})) == f"http://{host}"


@pytest.mark.parametrize("host", ["evil.example", "ours.example.evil.example", "xours.example", "[::1]"])
async def test_disallowed_host_is_refused(service: Service, key: str, host: str) -> None:
    answer = await ask(service, key, ServerSettings(allowed_hosts=("ours.example",)), {"host": host})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Host"


async def test_trusted_proxy_cannot_forward_disallowed_host(service: Service, key: str) -> None:
    settings = ServerSettings(allowed_hosts=("images.test",), trusted_proxies=("10.0.0.7",))
    assert (await ask(service, key, settings, FORWARDED)).status_code == 400


async def test_trusted_proxy_cannot_forward_unknown_scheme(service: Service, key: str) -> None:
    settings = ServerSettings(trusted_proxies=("10.0.0.7",))
    assert (await ask(service, key, settings, {"x-forwarded-proto": "javascript"})).status_code == 400
