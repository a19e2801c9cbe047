"""A stored file that is gone answers 404, one that was changed or cut 500, both by name; its bytes are never sent."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from allaprima.api.v1.paths import IMAGES_PATH
from allaprima.domain.ports import ObjectStore
from allaprima.errors import ImageDamaged, StoreError

BODY: dict[str, Any] = {"model": "sketch", "prompt": "a boat", "size": "64x64"}
Damage = Callable[[ObjectStore, str], Awaitable[None]]


async def remove(stored: ObjectStore, name: str) -> None:
    await stored.delete(name)


async def change(stored: ObjectStore, name: str) -> None:
    data = await stored.get(name)
    assert data is not None
    # Another bit in the last byte: a valid header, and the same length.
    await stored.put(name, data[:-1] + bytes([data[-1] ^ 1]))


async def cut(stored: ObjectStore, name: str) -> None:
    data = await stored.get(name)
    assert data is not None
    await stored.put(name, data[: len(data) // 2])


async def replace(stored: ObjectStore, name: str) -> None:
    [other] = {found async for page in stored.pages() for found, _ in page} - {name}
    await stored.put(name, await stored.get(other) or b"")


@pytest.fixture
async def images(client: httpx2.AsyncClient) -> list[dict[str, str]]:
    """The entries of two images."""
    for seed in (1, 2):
        assert (await client.post(IMAGES_PATH, json=BODY | {"seed": seed})).status_code == 200
    return sorted((await client.get("/v1/images")).json()["data"], key=lambda entry: entry["id"])


def object_name(image: dict[str, str]) -> str:
    return image["url"].rpartition("/")[2]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (remove, (404, "image_not_found")),
        (change, (500, "image_damaged")),
        (cut, (500, "image_damaged")),
        (replace, (500, "image_damaged")),
    ],
)
async def test_damaged_file_is_reported_by_name_wherever_its_bytes_were_requested(
    client: httpx2.AsyncClient,
    images: list[dict[str, str]],
    stored: ObjectStore,
    damage: Damage,
    expected: tuple[int, str],
) -> None:
    image, whole = images
    await damage(stored, object_name(image))
    ids = [image["id"], whole["id"]]
    answers = [
        await client.get(image["url"]),
        await client.get(image["url"], headers={"range": "bytes=0-9"}),
        await client.get(image["url"], headers={"range": "bytes=-1"}),
        await client.get(image["thumbnail_url"]),
        await client.post("/v1/images/archive", json={"ids": ids}),
    ]
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [expected] * len(answers)
    assert (await client.get(whole["url"], headers={"range": "bytes=0-9"})).status_code == 206
    assert (await client.get(whole["thumbnail_url"])).status_code == 200
    # A damaged result is not copied for an equal request, which is generated instead.
    answer = await client.post(IMAGES_PATH, json=BODY | {"seed": 1, "use_cache": True})
    [made] = answer.json()["images"]
    assert (await client.get(made["url"])).status_code == 200


@pytest.mark.parametrize(("damage", "kind"), [(remove, StoreError), (cut, ImageDamaged)])
async def test_archive_breaks_off_before_a_damaged_file(
    client: httpx2.AsyncClient,
    images: list[dict[str, str]],
    stored: ObjectStore,
    damage: Damage,
    kind: type[Exception],
) -> None:
    await damage(stored, object_name(images[1]))
    # The transport of this client raises what ends the response of a real server early.
    with pytest.raises(RuntimeError, match="response already started") as broken:
        await client.post("/v1/images/archive", json={"ids": [image["id"] for image in images]})
    assert isinstance(broken.value.__cause__, kind)
