"""Every route of the OpenAPI document, called with every kind of key."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.domain.accounts import KeySpec
from allaprima.service.accounts.keys import make_key
from allaprima.service.app import Service
from tests.fakes import FakeClock, FakeEngine, client_of, open_service

BODY = {"model": "sketch", "prompt": "a boat", "size": "64x64"}
#: Routes that need no key.
OPEN = {"/health", "/ready", "/v1/models", "/v1/models/{name}", "/model/{name}", "/models/metrics"}
OPEN |= {"/files/{token}/{name}", "/thumbnails/{token}/{name}", "/v1/sign-in"}
#: Routes for management keys alone, and for ordinary keys alone.
MANAGEMENT = {"/v1/keys", "/v1/keys/{prefix}", "/v1/keys/{prefix}/rotate"}
ORDINARY = {"/v1/key", "/v2/billing/transactions"}
#: Routes of jobs and images: for keys with the scope `model:image`.
IMAGES_AND_JOBS = ("/v1/images", "/v1/jobs", "/v1/groups/")
#: Routes that need a time range.
RANGED = {"/v2/usage", "/v2/usage/detail", "/v2/usage/by-key", "/v2/logs"}
GENERATING = {("post", "/v1/images/generations"), ("post", "/v1/jobs")}


@pytest.fixture
async def service(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> AsyncIterator[Service]:
    async with open_service(tmp_path, engine, clock) as opened:
        yield opened


async def keys_of(service: Service, account_id: str) -> dict[str, str | None]:
    """Return one key of every kind."""
    api_keys = service.keys
    _, ordinary = await api_keys.create(KeySpec("ordinary"), account_id)
    _, management = await api_keys.create(KeySpec("management", is_management=True), account_id)
    _, scopeless = await api_keys.create(KeySpec("scopeless", scopes=()), account_id)
    _, disabled = await api_keys.create(KeySpec("disabled", is_disabled=True), account_id)
    revoked_row, revoked = await api_keys.create(KeySpec("revoked"), account_id)
    await api_keys.revoke(revoked_row.prefix)
    _, stranger = await api_keys.create(KeySpec("stranger"), (await service.operator.accounts.create("stranger")).id)
    return {
        "none": None,
        "wrong": make_key(),
        "malformed": "secret",
        "revoked": revoked,
        "disabled": disabled,
        "stranger": stranger,
        "scopeless": scopeless,
        "management": management,
        "ordinary": ordinary,
    }


def expected(kind: str, method: str, path: str) -> set[int]:
    """Return the allowed statuses for a kind of key at a route; its resource belongs to the ordinary key's account."""
    if (method, path) == ("post", "/v1/sign-in"):
        # The token is missing.
        return {400}
    if path in OPEN:
        return {200, 304, 404}
    if kind in ("none", "wrong", "malformed", "revoked", "disabled"):
        return {401}
    return expected_of_valid(method, path, is_management=kind == "management", kind=kind)


def expected_of_valid(method: str, path: str, *, is_management: bool, kind: str) -> set[int]:
    if path in MANAGEMENT:
        return {200, 404} if is_management else {403}
    if path in ORDINARY:
        return {403} if is_management else {200}
    if (method, path) in GENERATING:
        return {403} if kind in ("management", "scopeless") else {200, 202}
    if path.startswith(IMAGES_AND_JOBS) and kind in ("management", "scopeless"):
        return {403}
    names_resource = "{" in path or path == "/v1/images/archive"
    if kind == "stranger" and names_resource and path != "/v1/groups/{group_id}/cancel":
        return {404}
    return {200, 202, 204, 409}


async def test_every_route_authorises_every_kind_of_key(service: Service, figures: Callable[[str], None]) -> None:
    owner = await service.keys.authenticate(service.first_key or "")
    keys = await keys_of(service, owner.account_id)
    statuses = Counter[int]()
    async with client_of(service) as client:
        document = (await client.get("/openapi.json")).json()
        for path, methods in document["paths"].items():
            for method in methods:
                for kind, key in keys.items():
                    names = await create_resources(client, str(keys["ordinary"]))
                    url = path.format(**names)
                    headers = {"authorization": f"Bearer {key}"} if key else {}
                    query = {"period": "1h"} if path in RANGED else {}
                    json = body_of(method, path, names)
                    answer = await client.request(method.upper(), url, headers=headers, params=query, json=json)
                    statuses[answer.status_code] += 1
                    assert answer.status_code in expected(kind, method, path), (kind, method, path, answer.text)
                    if kind in ("none", "wrong", "revoked", "disabled", "stranger"):
                        assert str(names["job_id"]) not in answer.text.replace(url, ""), (kind, method, path)
    figures(f"{sum(statuses.values())} calls of every route with every kind of key: {dict(statuses)}; 0 unexpected")


def body_of(method: str, path: str, names: dict[str, Any]) -> dict[str, Any] | None:
    """Return a valid body for a route; None for a route that needs none."""
    if (method, path) in GENERATING:
        return BODY
    if path == "/v1/images/archive":
        return {"ids": [names["image_id"]]}
    return {"starred": True} if (method, path) == ("patch", "/v1/images/{image_id}") else None


async def create_resources(client: httpx2.AsyncClient, key: str) -> dict[str, Any]:
    """Create one of every resource that a route may name; return their path parameters."""
    headers = {"authorization": f"Bearer {key}"}
    body = BODY | {"group_id": "g", "webhook_url": "https://example.com/hook"}
    generated = await client.post("/v1/images/generations", json=body, headers=headers)
    image = generated.json()["images"][0]
    token, name = image["url"].split("/")[-2:]
    [endpoint] = (await client.get("/v1/webhooks", headers=headers)).json()["data"]
    return {
        "job_id": generated.headers["x-inference-id"],
        "image_id": image["id"],
        "group_id": "g",
        "prefix": "unknown0",
        "endpoint_id": endpoint["id"],
        "name": name,
        "token": token,
    }
