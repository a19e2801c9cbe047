"""A server without authentication: it serves its own machine and its own pages, and refuses everything else by name."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.errors import Conflict, SettingsError
from allaprima.service.accounts.no_auth import LOCAL_KEY
from allaprima.service.app import Service
from tests.fakes import FakeClock, FakeEngine, client_of, open_service

BODY: dict[str, Any] = {"model": "sketch", "prompt": "a boat", "size": "64x64"}
IMAGES = "/v1/images/generations"
HOST = "127.0.0.1:8000"
NO_AUTH = {"requires_key": False}


@pytest.fixture(scope="module")
def backend() -> str:
    """SQLite alone: `serve --no-auth` refuses a database that other processes use."""
    return "sqlite"


@pytest.fixture
async def service(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> AsyncIterator[Service]:
    async with open_service(tmp_path, engine, clock, server=NO_AUTH) as opened:
        yield opened


@pytest.fixture
async def local(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A program on this machine, without a key."""
    async with client_of(service) as opened:
        opened.headers["host"] = HOST
        yield opened


async def test_request_without_key_acts_as_the_local_key(local: httpx2.AsyncClient, service: Service) -> None:
    answer = await local.post(IMAGES, json=BODY)
    assert answer.status_code == 200
    shown = (await local.get("/v1/key")).json()["data"]
    assert (shown["name"], shown["management"], shown["scopes"]) == (LOCAL_KEY, False, ["model:image"])
    [job] = (await local.get(f"/v1/jobs?key_prefix={shown['prefix']}")).json()["data"]
    assert job["id"] == answer.headers["x-inference-id"]
    assert [key.name for key in await service.keys.all()] == ["first", LOCAL_KEY]
    assert (await local.get("/v1/sign-in")).json() == {"data": {"requires_key": False}}


async def test_local_key_manages_no_keys(local: httpx2.AsyncClient) -> None:
    for method, path in (("GET", "/v1/keys"), ("POST", "/v1/keys")):
        answer = await local.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "management_key_required")


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ap_wrong", "Basic dXNlcjpwYXNz", f"Bearer ap_{'0' * 36}"]
)
async def test_wrong_key_is_refused(local: httpx2.AsyncClient, authorization: str) -> None:
    answer = await local.get("/v1/key", headers={"authorization": authorization})
    assert answer.status_code == 401


async def test_valid_key_acts_as_itself(local: httpx2.AsyncClient, service: Service) -> None:
    shown = await local.get("/v1/key", headers={"authorization": f"Bearer {service.first_key}"})
    assert shown.json()["data"]["name"] == "first"


async def test_revoked_local_key_is_refused(local: httpx2.AsyncClient, service: Service) -> None:
    prefix = (await local.get("/v1/key")).json()["data"]["prefix"]
    await service.keys.revoke(prefix)
    assert (await local.get("/v1/key")).status_code == 401


OWN = [
    {},
    {"host": "localhost:8000"},
    {"host": "localhost"},
    {"host": "LOCALHOST.:8000"},
    {"host": "playground.localhost:8000"},
    {"host": "[::1]:8000"},
    {"host": "127.0.0.2:8000"},
    {"origin": f"http://{HOST}"},
    {"host": "localhost:8000", "origin": "http://LOCALHOST:8000"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "same-origin", "origin": f"http://{HOST}"},
]


@pytest.mark.parametrize("headers", OWN, ids=str)
async def test_own_program_or_page_is_served(local: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    answer = await local.post(IMAGES, json=BODY, headers=headers)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


FOREIGN = [
    # DNS rebinding: the page's host name resolves to this machine.
    ({"host": "rebound.example:8000"}, "Host"),
    ({"host": "rebound.example:8000", "origin": "http://rebound.example:8000"}, "Host"),
    ({"host": "localhost.example"}, "Host"),
    ({"host": "127.0.0.1.example"}, "Host"),
    ({"host": "example@localhost"}, "Host"),
    ({"host": "localhost:x"}, "Host"),
    ({"host": "localhost:8000:80"}, "Host"),
    ({"host": "localhost,evil.example"}, "Host"),
    ({"host": "192.168.0.7:8000"}, "Host"),
    ({"host": "0.0.0.0:8000"}, "Host"),
    ({"host": "[::1"}, "Host"),
    ({"host": "[fe80::1]:8000"}, "Host"),
    ({"host": "xn--lcalhost-54a"}, "Host"),
    ({"host": ""}, "Host"),
    # Web pages of other origins.
    ({"origin": "https://other.example"}, "Origin"),
    ({"origin": "null"}, "Origin"),
    ({"origin": ""}, "Origin"),
    ({"origin": "file://"}, "Origin"),
    ({"origin": "http://localhost:8000"}, "Origin"),
    ({"origin": "http://127.0.0.1:3000"}, "Origin"),
    ({"origin": "https://127.0.0.1:8000"}, "Origin"),
    ({"origin": f"http://{HOST}.evil.example"}, "Origin"),
    ({"origin": f"http://{HOST}/"}, "Origin"),
    ({"sec-fetch-site": "cross-site"}, "Sec-Fetch-Site"),
    ({"sec-fetch-site": "same-site"}, "Sec-Fetch-Site"),
    ({"sec-fetch-site": "unknown"}, "Sec-Fetch-Site"),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, "Sec-Fetch-Site"),
    # Proxies, whose clients are other machines.
    ({"x-forwarded-for": "203.0.113.7"}, "x-forwarded-for"),
    ({"x-forwarded-for": ""}, "x-forwarded-for"),
    ({"x-forwarded-for": "127.0.0.1"}, "x-forwarded-for"),
    ({"x-forwarded-host": "images.example"}, "x-forwarded-host"),
    ({"x-forwarded-proto": "https"}, "x-forwarded-proto"),
    ({"x-forwarded-anything": "1"}, "x-forwarded-anything"),
    ({"x-real-ip": "203.0.113.7"}, "x-real-ip"),
    ({"forwarded": "for=203.0.113.7"}, "forwarded"),
    ({"via": "1.1 proxy"}, "via"),
    ({"cf-connecting-ip": "203.0.113.7"}, "cf-connecting-ip"),
]


@pytest.mark.parametrize(("headers", "name"), FOREIGN, ids=str)
@pytest.mark.parametrize("has_key", [False, True], ids=["without key", "with key"])
async def test_foreign_request_is_refused_by_name(
    local: httpx2.AsyncClient,
    service: Service,
    engine: FakeEngine,
    headers: dict[str, str],
    name: str,
    *,
    has_key: bool,
) -> None:
    sent = headers | ({"authorization": f"Bearer {service.first_key}"} if has_key else {})
    answer = await local.post(IMAGES, json=BODY, headers=sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_request")
    assert name in answer.json()["message"].partition(". ")[0]
    assert "access-control-allow-origin" not in answer.headers
    assert engine.requests == {}


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v1/models", "/v1/sign-in", "/health", "/metrics"])
async def test_every_path_is_guarded(local: httpx2.AsyncClient, path: str) -> None:
    assert (await local.get(path)).status_code == 200
    for headers in ({"host": "rebound.example"}, {"origin": "https://other.example"}, {"x-forwarded-for": "1.1.1.1"}):
        assert (await local.get(path, headers=headers)).status_code == 403
        assert (await local.get(f"/{path}", headers=headers)).status_code == 403


@pytest.mark.parametrize("name", ["host", "origin", "sec-fetch-site"])
async def test_second_value_of_a_header_does_not_hide_a_foreign_one(local: httpx2.AsyncClient, name: str) -> None:
    own = {"host": HOST, "origin": f"http://{HOST}", "sec-fetch-site": "none"}[name]
    headers = [("host", HOST), (name, own), (name, "cross-site")]
    if name == "host":
        headers = headers[1:]
    request = httpx2.Request("GET", "http://127.0.0.1:8000/v1/key", headers=headers)
    answer = await local.send(request)
    assert answer.status_code == 403


async def test_other_machine_is_refused(service: Service) -> None:
    async with client_of(service, address="10.0.0.7") as client:
        answer = await client.get("/v1/key", headers={"host": HOST})
    assert answer.status_code == 403
    assert "another machine" in answer.json()["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_simple_request_of_an_old_browser_is_refused(
    local: httpx2.AsyncClient, engine: FakeEngine, kind: str
) -> None:
    body = b'{"model": "sketch", "prompt": "a boat"}'
    assert (await local.post(IMAGES, content=body, headers={"content-type": kind})).status_code == 415
    assert engine.requests == {}


async def test_preflight_of_another_origin_allows_nothing(local: httpx2.AsyncClient) -> None:
    headers = {
        "origin": "https://other.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
        "access-control-request-private-network": "true",
    }
    answer = await local.request("OPTIONS", IMAGES, headers=headers)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_link_of_another_site_opens_pages_and_images_alone(local: httpx2.AsyncClient) -> None:
    image = (await local.post(IMAGES, json=BODY)).json()["images"][0]["url"]
    tab = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    for path in ("/", "/docs", image):
        assert (await local.get(path, headers=tab)).status_code == 200
    for path in ("/v1/jobs", "/v1/key", "/openapi.json"):
        assert (await local.get(path, headers=tab)).status_code == 403
    for other in ({"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, {"sec-fetch-dest": "iframe"}):
        assert (await local.get(image, headers=tab | other)).status_code == 403


async def test_image_has_no_cors_header(local: httpx2.AsyncClient) -> None:
    image = (await local.post(IMAGES, json=BODY)).json()["images"][0]["url"]
    answer = await local.get(image)
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_second_account_is_refused_while_it_runs(service: Service) -> None:
    with pytest.raises(Conflict, match="--no-auth, which is for a single account"):
        await service.operator.accounts.create("acme")
    assert len(await service.accounts.all()) == 1


async def test_folder_with_several_accounts_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        await service.operator.accounts.create("acme")
    with pytest.raises(SettingsError, match="this one has 2: default, acme"):
        async with open_service(tmp_path, FakeEngine(), clock, server=NO_AUTH):
            pass


async def test_restart_replaces_the_local_key_and_keeps_its_images(tmp_path: Path, clock: FakeClock) -> None:
    keys = []
    for expected in (1, 2):
        async with open_service(tmp_path, FakeEngine(), clock, server=NO_AUTH) as service:
            assert service.local_key is not None
            keys.append(service.local_key)
            async with client_of(service) as client:
                client.headers["host"] = HOST
                assert (await client.post(IMAGES, json=BODY)).status_code == 200
                prefix = (await client.get("/v1/key")).json()["data"]["prefix"]
                assert len((await client.get(f"/v1/jobs?key_prefix={prefix}")).json()["data"]) == expected
            assert [key.name for key in await service.keys.all()].count(LOCAL_KEY) == 1
    assert len(set(keys)) == 2


async def test_local_key_of_an_earlier_start_is_invalid_where_keys_are_required(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with open_service(tmp_path, FakeEngine(), clock, server=NO_AUTH):
        pass
    async with open_service(tmp_path, FakeEngine(), clock) as service, client_of(service) as client:
        assert service.local_key is None
        assert (await client.get("/v1/key", headers={"host": HOST})).status_code == 401
