"""The operator's API: keys and accounts."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from allaprima.api.operator import create_operator_app
from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.service.accounts.keys import is_well_formed
from allaprima.service.app import Service
from tests.fakes import FakeClock

MEMBERS = {"prefix", "name", "account_id", "created_at", "revoked_at", "is_management", "is_disabled"}


@pytest.fixture
async def operator(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(create_operator_app(service.operator))
    async with httpx2.AsyncClient(transport=transport, base_url="http://operator.test") as opened:
        yield opened


async def generate(client: httpx2.AsyncClient, key: str) -> int:
    body = {"model": "sketch", "prompt": "a boat", "size": "64x64"}
    return (await client.post(IMAGES_PATH, json=body, headers={"authorization": f"Bearer {key}"})).status_code


async def test_new_key_is_shown_once_and_is_valid(
    operator: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, clock: FakeClock
) -> None:
    made = (await operator.post("/keys", json={"name": "ci"})).json()
    assert set(made) == {*MEMBERS, "key"}
    assert is_well_formed(made["key"])
    assert made["key"][3:11] == made["prefix"]
    assert (made["name"], made["created_at"], made["revoked_at"]) == ("ci", clock.now, None)
    assert await generate(anonymous, made["key"]) == 200


async def test_key_name_is_optional(operator: httpx2.AsyncClient) -> None:
    assert (await operator.post("/keys", json={})).json()["name"] is None


async def test_keys_are_listed_oldest_first_without_secrets(
    operator: httpx2.AsyncClient, key: str, clock: FakeClock
) -> None:
    clock.now += 1
    made = (await operator.post("/keys", json={"name": "ci"})).json()
    answer = await operator.get("/keys")
    assert [row["name"] for row in answer.json()] == ["first", "ci"]
    assert [row["prefix"] for row in answer.json()] == [key[3:11], made["prefix"]]
    assert all(set(row) == MEMBERS for row in answer.json())
    assert key not in answer.text
    assert made["key"] not in answer.text


async def test_revoked_key_is_invalid_at_once(
    operator: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, key: str, clock: FakeClock
) -> None:
    assert await generate(anonymous, key) == 200
    clock.now += 5
    answer = await operator.post("/keys/revoke", json={"prefix": key[3:11]})
    assert (answer.status_code, answer.json()) == (200, {"prefix": key[3:11], "revoked": True})
    assert await generate(anonymous, key) == 401
    assert (await operator.get("/keys")).json()[0]["revoked_at"] == clock.now


async def test_revoking_invalid_key_is_refused(operator: httpx2.AsyncClient, key: str) -> None:
    await operator.post("/keys/revoke", json={"prefix": key[3:11]})
    for prefix in (key[3:11], "00000000", key):
        answer = await operator.post("/keys/revoke", json={"prefix": prefix})
        assert answer.status_code == 404
        assert answer.json() == {
            "code": "key_not_found",
            "message": f"there is no valid key with the prefix {prefix}",
        }


async def test_operator_api_has_no_other_routes(operator: httpx2.AsyncClient) -> None:
    for path in ("/docs", "/openapi.json", "/redoc", "/v1/models", "/", IMAGES_PATH):
        assert (await operator.get(path)).status_code == 404


async def test_public_api_has_no_operator_routes(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/keys")).status_code == 404
    assert (await client.post("/keys", json={})).status_code == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"a"', b"\xff", b'{"prefix": 3}', b'{"prefix": "a", "other": 1}'])
async def test_invalid_body_answers_400(operator: httpx2.AsyncClient, body: bytes) -> None:
    answer = await operator.post("/keys/revoke", content=body)

    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"
    assert answer.json()["message"]


async def test_refusal_names_every_invalid_field(operator: httpx2.AsyncClient) -> None:
    answer = await operator.post("/accounts/credit", json={"account": "", "usd": "nan", "note": "\n"})

    assert [problem.partition(":")[0] for problem in answer.json()["message"].split("; ") if ":" in problem] == [
        "account", "usd", "note",
    ]  # fmt: skip
