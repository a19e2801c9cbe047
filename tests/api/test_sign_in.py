"""`/v1/sign-in`: a single-use token becomes a key, without a key."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from allaprima.api.operator import create_operator_app
from allaprima.api.v1.sign_in import TOKENS_PER_MINUTE
from allaprima.service.app import Service
from tests.fakes import FakeClock, client_of

SIGN_IN = "/v1/sign-in"


@pytest.fixture
async def token(service: Service) -> str:
    return await service.sign_in.create_token()


async def test_token_is_exchanged_for_a_key_once(anonymous: httpx2.AsyncClient, token: str) -> None:
    answer = await anonymous.post(SIGN_IN, json={"token": token})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()["data"]
    assert set(made) == {"key", "prefix", "name"}
    shown = await anonymous.get("/v1/key", headers={"authorization": f"Bearer {made['key']}"})
    assert (shown.json()["data"]["prefix"], shown.json()["data"]["name"]) == (made["prefix"], made["name"])

    again = await anonymous.post(SIGN_IN, json={"token": token})
    assert again.status_code == 401
    assert again.json()["error"]["code"] == "invalid_sign_in_token"
    assert "allaprima open" in again.json()["message"]


async def test_valid_key_of_the_account_is_kept(client: httpx2.AsyncClient, key: str, token: str) -> None:
    answer = await client.post(SIGN_IN, json={"token": token})
    assert answer.json()["data"] == {"key": None, "prefix": key[3:11], "name": "first"}
    assert (await client.post(SIGN_IN, json={"token": token})).status_code == 401


async def test_invalid_key_of_a_browser_is_replaced(anonymous: httpx2.AsyncClient, token: str) -> None:
    answer = await anonymous.post(SIGN_IN, json={"token": token}, headers={"authorization": "Bearer ap_wrong"})
    assert answer.status_code == 200
    assert answer.json()["data"]["key"] is not None


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "token"),
        ({"token": None}, "token"),
        ({"token": 5}, "token"),
        ({"token": ""}, "token"),
        ({"token": "x" * 201}, "token"),
        ({"token": "x", "account": "default"}, "account"),
    ],
)
async def test_invalid_body_is_refused_by_field(
    anonymous: httpx2.AsyncClient, body: dict[str, object], problem: str
) -> None:
    answer = await anonymous.post(SIGN_IN, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == problem


async def test_form_of_a_web_page_is_refused(anonymous: httpx2.AsyncClient, token: str) -> None:
    body = f'{{"token": "{token}"}}'
    answer = await anonymous.post(SIGN_IN, content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert (await anonymous.post(SIGN_IN, json={"token": token})).status_code == 200


async def test_tokens_of_one_address_are_limited(service: Service, token: str, clock: FakeClock) -> None:
    async with client_of(service, address="10.0.0.7") as guesser, client_of(service, address="10.0.0.8") as other:
        statuses = [
            (await guesser.post(SIGN_IN, json={"token": f"{number:043}"})).status_code
            for number in range(TOKENS_PER_MINUTE)
        ]
        assert set(statuses) == {401}
        refused = await guesser.post(SIGN_IN, json={"token": token})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert (await other.post(SIGN_IN, json={"token": token})).status_code == 200
        clock.now += 60
        assert (await guesser.post(SIGN_IN, json={"token": token})).status_code == 401


async def test_server_says_that_it_requires_a_key(anonymous: httpx2.AsyncClient) -> None:
    assert (await anonymous.get(SIGN_IN)).json() == {"data": {"requires_key": True}}


@pytest.fixture
async def operator(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    async def link_to(account: str | None) -> str:
        return f"http://images.test/#token={await service.sign_in.create_token(account)}"

    transport = httpx2.ASGITransport(create_operator_app(service.operator, link_to=link_to))
    async with httpx2.AsyncClient(transport=transport, base_url="http://operator.test") as opened:
        yield opened


async def test_operator_creates_links(operator: httpx2.AsyncClient, anonymous: httpx2.AsyncClient) -> None:
    url = (await operator.post("/sign-in-links", json={})).json()["url"]
    assert (await anonymous.post(SIGN_IN, json={"token": url.partition("#token=")[2]})).status_code == 200
    assert (await operator.post("/sign-in-links", json={"account": "unknown"})).status_code == 404


async def test_operator_without_server_creates_no_links(service: Service) -> None:
    transport = httpx2.ASGITransport(create_operator_app(service.operator))
    async with httpx2.AsyncClient(transport=transport, base_url="http://operator.test") as operator:
        assert (await operator.post("/sign-in-links", json={})).status_code == 404
