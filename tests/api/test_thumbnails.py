"""Thumbnails by signed links: served without a key until the image is gone; any other link is refused."""

import io
from typing import Any

import httpx2
import pytest
from PIL import Image

from allaprima.api.v1.paths import IMAGES_PATH
from tests.fakes import FakeClock

BODY: dict[str, Any] = {"model": "sketch", "prompt": "a boat", "size": "640x480", "seed": 7}


@pytest.fixture
async def image(client: httpx2.AsyncClient) -> dict[str, Any]:
    return (await client.post(IMAGES_PATH, json=BODY)).json()["images"][0]


@pytest.fixture
def link(image: dict[str, Any]) -> str:
    """The path of a thumbnail."""
    return str(image["thumbnail_url"]).removeprefix("http://images.test")


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
async def test_thumbnail_is_small_webp_without_key(
    client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, output_format: str
) -> None:
    [image] = (await client.post(IMAGES_PATH, json=BODY | {"output_format": output_format})).json()["images"]
    assert image["thumbnail_url"].startswith("http://images.test/thumbnails/")
    assert image["thumbnail_url"].endswith(f"/{image['id']}.webp")
    answer = await anonymous.get(image["thumbnail_url"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(answer.content)).size == (320, 240)


async def test_thumbnail_may_be_cached_by_browsers_until_image_expires(
    anonymous: httpx2.AsyncClient, link: str, clock: FakeClock
) -> None:
    clock.now += 86400
    answer = await anonymous.get(link)
    assert answer.headers["cache-control"] == f"private, max-age={6 * 86400}, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_client_with_current_thumbnail_receives_304(anonymous: httpx2.AsyncClient, link: str) -> None:
    etag = (await anonymous.get(link)).headers["etag"]
    answer = await anonymous.get(link, headers={"if-none-match": etag})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert (await anonymous.get(link, headers={"if-none-match": '"other"'})).status_code == 200


async def test_head_answers_like_get_without_body(anonymous: httpx2.AsyncClient, link: str) -> None:
    answer = await anonymous.head(link)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"", "image/webp")


async def test_thumbnail_of_deleted_or_expired_image_answers_404(
    client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient, image: dict[str, Any], link: str, clock: FakeClock
) -> None:
    [other] = (await client.post(IMAGES_PATH, json=BODY)).json()["images"]
    for path in (link, other["thumbnail_url"]):
        assert (await anonymous.get(path)).status_code == 200
    await client.delete(f"/v1/images/{image['id']}")
    assert (await anonymous.get(link)).status_code == 404
    clock.now = other["expires_at"]
    assert (await anonymous.get(other["thumbnail_url"])).status_code == 404


async def test_links_of_image_and_thumbnail_do_not_open_each_other(
    client: httpx2.AsyncClient, anonymous: httpx2.AsyncClient
) -> None:
    [image] = (await client.post(IMAGES_PATH, json=BODY | {"output_format": "webp"})).json()["images"]
    for url, other in (("url", "/thumbnails/"), ("thumbnail_url", "/files/")):
        _, _, rest = image[url].removeprefix("http://images.test/").partition("/")
        assert (await anonymous.get(image[url])).status_code == 200
        assert (await anonymous.get(f"{other}{rest}")).status_code == 404


async def test_forged_thumbnail_link_answers_404(anonymous: httpx2.AsyncClient, link: str) -> None:
    start, _, name = link.rpartition("/")
    expires, _, signature = start.rpartition("/")[2].partition("-")
    for token in (f"{int(expires) + 1}-{signature}", f"{expires}-{signature[::-1]}", expires, "x"):
        answer = await anonymous.get(f"/thumbnails/{token}/{name}")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "image_not_found"
