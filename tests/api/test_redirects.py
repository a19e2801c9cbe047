"""Links that redirect to the bucket, by setting: short-lived, and never for the playground or a HEAD request."""

from pathlib import Path

import httpx2
import pytest

from allaprima.api.v1.paths import IMAGES_PATH
from tests.fakes import FakeClock, FakeEngine, client_of, open_service

BODY = {"model": "sketch", "prompt": "a boat", "size": "64x64"}


async def test_link_redirects_to_bucket_for_a_minute_at_most(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, bucket_url: str
) -> None:
    store = {"bucket": bucket_url, "redirects_links": True}
    async with open_service(tmp_path, engine, clock, store=store) as service:
        client = client_of(service, key=service.first_key)
        [image] = (await client.post(IMAGES_PATH, json=BODY)).json()["images"]
        answer = await client.get(image["url"])
        assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
        assert "X-Amz-Expires=60" in answer.headers["location"]
        direct = httpx2.get(answer.headers["location"])
        assert (direct.status_code, direct.headers["content-type"]) == (200, "image/png")
        for headers in ({"sec-fetch-site": "same-origin"}, {"referer": "http://images.test/"}):
            page = await client.get(image["url"], headers=headers)
            assert (page.status_code, page.content) == (200, direct.content)
        assert (await client.head(image["url"])).status_code == 200
        await client.delete(f"/v1/images/{image['id']}")
        assert (await client.get(image["url"])).status_code == 404
        assert httpx2.get(answer.headers["location"]).status_code == 404


@pytest.mark.parametrize("redirects", [False, True])
async def test_link_is_served_by_this_server_without_bucket(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock, redirects: bool
) -> None:
    async with open_service(tmp_path, engine, clock, store={"redirects_links": redirects}) as service:
        client = client_of(service, key=service.first_key)
        [image] = (await client.post(IMAGES_PATH, json=BODY)).json()["images"]
        assert (await client.get(image["url"])).status_code == 200
