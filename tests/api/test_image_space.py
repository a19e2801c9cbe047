"""The operator's bound on the bytes of all images: requests are refused at it, and the operator is warned before."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.domain.generation import ImageFormat
from allaprima.service.app import Service
from tests.fakes import FakeClock, FakeEngine, client_of, ended, open_service, plain_image

BODY: dict[str, Any] = {"model": "sketch", "prompt": "a boat", "size": "64x64", "seed": 7}
SIZE = len(plain_image(64, 64, (255, 7, 0), ImageFormat.PNG))
MESSAGE = (
    "The server's images fill the space that the operator allows. Delete some, or try again when some have expired."
)


@pytest.fixture
async def service(tmp_path: Path, engine: FakeEngine, clock: FakeClock) -> AsyncIterator[Service]:
    """A service with space for three images."""
    async with open_service(tmp_path, engine, clock, store={"max_image_bytes": 3 * SIZE}) as opened:
        yield opened


async def generate(client: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post(IMAGES_PATH, json=BODY | fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["images"][0])


async def fill(client: httpx2.AsyncClient) -> dict[str, Any]:
    """Generate three images; return the first."""
    first = await generate(client, expires_in=60)
    for _ in range(2):
        await generate(client)
    return first


@pytest.mark.parametrize("path", [IMAGES_PATH, "/v1/jobs"])
async def test_request_is_refused_when_images_fill_their_space(client: httpx2.AsyncClient, path: str) -> None:
    await fill(client)
    answer = await client.post(path, json=BODY)
    assert answer.status_code == 507
    assert answer.json()["error"]["code"] == "image_limit_reached"
    assert answer.json()["message"] == MESSAGE
    assert answer.headers["retry-after"] == "60"
    assert (await client.get("/v1/jobs", params={"limit": "100"})).json()["data"][3:] == []


async def test_expired_images_are_removed_before_a_request_is_refused(
    client: httpx2.AsyncClient, clock: FakeClock, tmp_path: Path
) -> None:
    await fill(client)
    clock.now += 60
    await generate(client)
    assert len(list((tmp_path / "images").iterdir())) == 3
    assert (await client.post(IMAGES_PATH, json=BODY)).status_code == 507


async def test_starred_images_count_although_their_time_is_over(client: httpx2.AsyncClient, clock: FakeClock) -> None:
    image = await fill(client)
    await client.patch(f"/v1/images/{image['id']}", json={"starred": True})
    clock.now += 60
    assert (await client.post(IMAGES_PATH, json=BODY)).status_code == 507
    await client.delete(f"/v1/images/{image['id']}")
    await generate(client)


async def test_requests_that_store_no_image_are_accepted_in_full_space(client: httpx2.AsyncClient) -> None:
    await generate(client, expires_in=60)
    headers = {"idempotency-key": "once"}
    accepted = await client.post("/v1/jobs", json=BODY, headers=headers)
    while (await client.get(f"/v1/jobs/{accepted.json()['id']}")).json()["status"] != "succeeded":  # noqa: ASYNC110 - a poll
        await asyncio.sleep(0.01)
    await generate(client)
    assert (await client.post(IMAGES_PATH, json=BODY)).status_code == 507
    fields = {"store": False, "response_format": "b64_json"}
    assert (await client.post(IMAGES_PATH, json=BODY | fields)).status_code == 200
    assert (await client.post(IMAGES_PATH, json=BODY | {"dry_run": True})).status_code == 200
    replayed = await client.post("/v1/jobs", json=BODY, headers=headers)
    assert (replayed.status_code, replayed.json()["id"]) == (202, accepted.json()["id"])


async def test_accepted_jobs_are_stored_beyond_the_bound(
    service: Service, client: httpx2.AsyncClient, engine: FakeEngine
) -> None:
    engine.hold()
    jobs = [(await client.post("/v1/jobs", json=BODY)).json()["id"] for _ in range(5)]
    engine.release()
    assert {(await ended(service, job)).state.value for job in jobs} == {"succeeded"}


async def test_refusal_is_counted(service: Service, client: httpx2.AsyncClient) -> None:
    await fill(client)
    await client.post(IMAGES_PATH, json=BODY)
    assert 'reason="image_limit_reached"' in (await client.get("/metrics", headers={"host": "localhost"})).text


async def test_readiness_warns_from_90_percent(client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient) -> None:
    for _ in range(2):
        await generate(client)
    assert (await anonymous.get("/ready")).json() == {"status": "ready"}
    await generate(client)
    answer = await anonymous.get("/ready")
    [warning] = answer.json()["warnings"]
    assert answer.status_code == 200
    assert warning.startswith(
        "the stored images fill 100% of ALLAPRIMA_STORE__MAX_IMAGE_BYTES; new requests are refused"
    )


async def test_without_a_bound_nothing_is_refused_or_warned(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path / "unbounded", FakeEngine(), clock) as service, client_of(service) as client:
        client.headers["authorization"] = f"Bearer {service.first_key}"
        await fill(client)
        await generate(client)
        assert (await client.get("/ready")).json() == {"status": "ready"}
