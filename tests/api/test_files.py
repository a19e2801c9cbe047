"""Signed image links: served without a key until they expire; any other link is refused."""

import re
from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest
import pytest_asyncio

from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.service.app import Service
from allaprima.settings import ServerSettings
from tests.fakes import FakeClock, FakeEngine, client_of, open_service

# No test changes state that another test reads, so all tests share one service.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def anonymous(shared_anonymous: httpx2.AsyncClient) -> httpx2.AsyncClient:
    return shared_anonymous


@pytest.fixture
def clock(shared_clock: FakeClock) -> Iterator[FakeClock]:
    """The service's clock, set back after each test."""
    before = shared_clock.now
    yield shared_clock
    shared_clock.now = before


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def link(shared_client: httpx2.AsyncClient) -> str:
    """The path of an image's link."""
    answer = await shared_client.post(IMAGES_PATH, json={"model": "sketch", "prompt": "a boat", "size": "64x64"})
    return answer.json()["images"][0]["url"].removeprefix("http://images.test")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def data(shared_anonymous: httpx2.AsyncClient, link: str) -> bytes:
    """The image's file."""
    return (await shared_anonymous.get(link)).content


async def test_image_is_served_without_key(anonymous: httpx2.AsyncClient, link: str) -> None:
    answer = await anonymous.get(link)
    assert answer.status_code == 200
    assert answer.content.startswith(b"\x89PNG")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"
    name = link.rpartition("/")[2]
    assert answer.headers["content-disposition"] == f'inline; filename="{name}"'


async def test_invalid_key_is_ignored(anonymous: httpx2.AsyncClient, link: str) -> None:
    assert (await anonymous.get(link, headers={"authorization": "Bearer invalid"})).status_code == 200


async def test_image_may_be_cached_until_it_expires(anonymous: httpx2.AsyncClient, link: str, clock: FakeClock) -> None:
    clock.now += 86400
    answer = await anonymous.get(link)
    assert answer.headers["cache-control"] == f"public, max-age={6 * 86400}, immutable"


async def test_head_answers_like_get_without_body(anonymous: httpx2.AsyncClient, link: str, data: bytes) -> None:
    answer = await anonymous.head(link)
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["etag"]


# Conditional requests -----------------------------------------------------------------------------------------------


async def test_etag_is_strong_and_stable(anonymous: httpx2.AsyncClient, link: str) -> None:
    tags = {(await anonymous.get(link)).headers["etag"] for _ in range(2)}
    assert len(tags) == 1
    assert re.fullmatch(r'"[0-9a-f]{64}"', tags.pop())


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*", '{},"other"'])
async def test_matching_if_none_match_answers_304(anonymous: httpx2.AsyncClient, link: str, form: str) -> None:
    etag = (await anonymous.get(link)).headers["etag"]
    answer = await anonymous.get(link, headers={"if-none-match": form.format(etag)})
    assert answer.status_code == 304
    assert answer.content == b""
    assert answer.headers["etag"] == etag
    assert "cache-control" in answer.headers


@pytest.mark.parametrize("tag", ['"other"', "", "nonsense", 'W/"other"'])
async def test_other_etag_answers_with_image(anonymous: httpx2.AsyncClient, link: str, tag: str) -> None:
    assert (await anonymous.get(link, headers={"if-none-match": tag})).status_code == 200


# Ranges -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-0", 0, 1),
        ("0-9", 0, 10),
        ("10-", 10, None),
        ("-8", -8, None),
        ("5-999999999", 5, None),
        ("-999999", 0, None),
    ],
)
async def test_range_answers_with_its_bytes(
    anonymous: httpx2.AsyncClient, link: str, data: bytes, asked: str, first: int, last: int | None
) -> None:
    answer = await anonymous.get(link, headers={"range": f"bytes={asked}"})
    assert answer.status_code == 206
    assert answer.content == data[first:last]
    start = first % len(data)
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(answer.content) - 1}/{len(data)}"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize("asked", ["999999-", "999999-9999999", "-0"])
async def test_range_beyond_file_answers_416_with_size(
    anonymous: httpx2.AsyncClient, link: str, data: bytes, asked: str
) -> None:
    answer = await anonymous.get(link, headers={"range": f"bytes={asked}"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(data)}"
    assert answer.content == b""


@pytest.mark.parametrize(
    "asked",
    ["bytes=9-5", "bytes=-", "bytes=", "bytes=a-b", "bytes=0-1,4-5", "lines=0-1", "0-1", "bytes=" + "9" * 400 + "-"],
)
async def test_invalid_range_answers_with_whole_file(
    anonymous: httpx2.AsyncClient, link: str, data: bytes, asked: str
) -> None:
    answer = await anonymous.get(link, headers={"range": asked})
    assert answer.status_code == 200
    assert answer.content == data


async def test_range_with_other_if_range_answers_with_whole_file(
    anonymous: httpx2.AsyncClient, link: str, data: bytes
) -> None:
    etag = (await anonymous.get(link)).headers["etag"]
    same = await anonymous.get(link, headers={"range": "bytes=0-3", "if-range": etag})
    other = await anonymous.get(link, headers={"range": "bytes=0-3", "if-range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)
    assert other.content == data


# Other origins ------------------------------------------------------------------------------------------------------


async def test_any_page_may_show_image(anonymous: httpx2.AsyncClient, link: str) -> None:
    for headers in ({}, {"origin": "https://page.example"}):
        answer = await anonymous.get(link, headers=headers)
        assert answer.headers.get_list("access-control-allow-origin") == ["*"]
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_page_outside_cors_origins_may_show_image(shared: Service, link: str) -> None:
    settings = ServerSettings(cors_origins=("https://ours.example",))
    async with client_of(shared, settings) as client:
        answer = await client.get(link, headers={"origin": "https://page.example"})
        assert answer.headers.get_list("access-control-allow-origin") == ["*"]


# Invalid and expired links --------------------------------------------------------------------------------------------


def forgeries(link: str) -> list[str]:
    _, _, token, name = link.split("/")
    expires, _, signature = token.partition("-")
    image_id, _, suffix = name.partition(".")
    swapped = signature[1:] + signature[0]
    return [
        f"/files/{expires}-{swapped}/{name}",
        f"/files/{expires}-{signature[:-1]}/{name}",
        f"/files/{expires}-{signature}A/{name}",
        f"/files/{expires}-/{name}",
        f"/files/{expires}/{name}",
        f"/files/-{signature}/{name}",
        f"/files/{int(expires) + 1}-{signature}/{name}",
        f"/files/{'9' * 400}-{signature}/{name}",
        f"/files/-{expires}-{signature}/{name}",
        f"/files/{expires}.0-{signature}/{name}",
        f"/files/%C2%B2-{signature}/{name}",
        f"/files/{expires}-%C3%BC/{name}",
        f"/files/{expires}-%ED%A0%80/{name}",
        f"/files/{token}/{image_id[:-1]}{'0' if image_id[-1] != '0' else '1'}.{suffix}",
        f"/files/{token}/{image_id}.jpeg",
        f"/files/{token}/{image_id}",
        f"/files/{token}/{name}%00",
        f"/files/{token}/%ED%A0%80",
        f"/files/{token}/..%2f..%2fsecret",
        f"/files/{token}/",
        f"/files/{token}",
        f"/files//{name}",
        f"/files/{token}/x/{name}",
        f"/files/{token}/%2e%2e/{name}",
        "/files/x/../../etc/passwd",
        "/files/allaprima.db",
    ]


async def test_forged_link_answers_404(anonymous: httpx2.AsyncClient, link: str) -> None:
    assert (await anonymous.get(link)).status_code == 200
    for forged in forgeries(link):
        answer = await anonymous.get(forged)
        assert answer.status_code == 404, forged
        assert answer.json()["statusCode"] == 404


async def test_expired_link_answers_404(anonymous: httpx2.AsyncClient, link: str, clock: FakeClock) -> None:
    clock.now += 7 * 86400 - 1
    assert (await anonymous.get(link)).status_code == 200
    clock.now += 1
    answer = await anonymous.get(link)
    assert answer.status_code == 404
    assert answer.json()["message"] == "There is no such image, or it has expired."
    assert answer.json()["error"]["code"] == "image_not_found"


async def test_files_cannot_be_listed(anonymous: httpx2.AsyncClient, link: str) -> None:
    for path in ("/files", "/files/", link.rpartition("/")[0], link.rpartition("/")[0] + "/"):
        assert (await anonymous.get(path)).status_code == 404


@pytest_asyncio.fixture(loop_scope="module")
async def other_service(tmp_path_factory: pytest.TempPathFactory, clock: FakeClock) -> AsyncIterator[Service]:
    """The service of another data folder."""
    async with open_service(tmp_path_factory.mktemp("other_service"), FakeEngine(), clock) as opened:
        yield opened


async def test_link_of_other_data_folder_answers_404(link: str, other_service: Service) -> None:
    async with client_of(other_service) as client:
        assert (await client.get(link)).status_code == 404
