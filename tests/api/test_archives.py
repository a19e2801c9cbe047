"""ZIP archives of images over HTTP, and their bounds in memory."""

import io
import zipfile
from typing import Any

import httpx2
import pytest

from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.domain.accounts import KeySpec
from allaprima.service.app import Service
from tests.fakes import FakeClock, client_of

ARCHIVE = "/v1/images/archive"
BODY: dict[str, Any] = {"model": "sketch", "prompt": "a boat", "size": "64x64", "seed": 7}
UNKNOWN = "01900000-0000-7000-8000-000000000000"


async def generate(client: httpx2.AsyncClient, prompt: str = "a boat", **fields: Any) -> list[dict[str, Any]]:
    answer = await client.post(IMAGES_PATH, json=BODY | {"prompt": prompt} | fields)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["images"])


async def fetch(client: httpx2.AsyncClient, *images: dict[str, Any]) -> zipfile.ZipFile:
    answer = await client.post(ARCHIVE, json={"ids": [image["id"] for image in images]})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="images.zip"'
    return zipfile.ZipFile(io.BytesIO(answer.content))


async def test_archive_holds_images_under_unique_names_in_the_given_order(client: httpx2.AsyncClient) -> None:
    images = [
        *await generate(client, "A red boat!"),
        *await generate(client, "A red boat!"),
        *await generate(client, "über/../etc", output_format="jpeg", num_images=2),
        *await generate(client, "?!", output_format="webp", seed=2**63 - 1),
    ]
    archive = await fetch(client, *reversed(images))
    assert archive.testzip() is None
    assert archive.namelist() == [
        "image-9223372036854775807-1.webp",
        "über-etc-8-2.jpeg",
        "über-etc-7-3.jpeg",
        "a-red-boat-7-4.png",
        "a-red-boat-7-5.png",
    ]
    for image, name in zip(reversed(images), archive.namelist(), strict=True):
        assert archive.read(name) == (await client.get(image["url"])).content


async def test_reader_of_a_stream_finds_size_and_checksum_before_each_image(client: httpx2.AsyncClient) -> None:
    archive = await fetch(client, *await generate(client, num_images=2))
    for entry in archive.infolist():
        assert (entry.flag_bits & 0x08, entry.compress_type) == (0, zipfile.ZIP_STORED)
        assert entry.date_time == (2026, 1, 15, 8, 0, 0)
        assert archive.open(entry).read()


async def test_archive_names_all_images_that_do_not_exist(
    service: Service, client: httpx2.AsyncClient, clock: FakeClock
) -> None:
    [kept], [expired], [deleted] = (
        await generate(client),
        await generate(client, expires_in=60),
        await generate(client),
    )
    _, key = await service.keys.create(KeySpec(), (await service.operator.accounts.create("stranger")).id)
    async with client_of(service, key=key) as stranger:
        [foreign] = await generate(stranger)
    await client.delete(f"/v1/images/{deleted['id']}")
    clock.now += 60
    missing = [expired["id"], deleted["id"], foreign["id"], UNKNOWN]
    answer = await client.post(ARCHIVE, json={"ids": [kept["id"], *missing]})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "image_not_found"
    assert answer.json()["message"] == f"There are no such images, or they have expired: {', '.join(missing)}"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "ids: is required"),
        ({"ids": []}, "ids: must have from 1 to 500 ids; it has 0"),
        ({"ids": [UNKNOWN] * 501}, "ids: must have from 1 to 500 ids; it has 501"),
        ({"ids": [UNKNOWN, UNKNOWN]}, f"ids: must contain every id once; {UNKNOWN} is repeated"),
        ({"ids": UNKNOWN}, "ids: must be a list of strings"),
        ({"ids": [7]}, "ids: must be a list of strings"),
        ({"ids": ["../secret"]}, 'ids: must contain ids of images; "../secret" is none'),
        ({"ids": [UNKNOWN], "name": "x"}, "name: is not a known field"),
    ],
)
async def test_invalid_archive_request_is_refused(
    client: httpx2.AsyncClient, body: dict[str, Any], problem: str
) -> None:
    answer = await client.post(ARCHIVE, json=body)
    assert answer.status_code == 400
    assert problem in answer.json()["message"]
