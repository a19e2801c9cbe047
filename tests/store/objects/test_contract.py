"""The contract of every object store: atomic writes, reads by name, listings with modification times."""

import asyncio
from datetime import UTC, datetime, timedelta

from allaprima.domain.ports import ObjectStore


async def listed(objects: ObjectStore) -> dict[str, datetime]:
    return {name: changed_at async for page in objects.pages() for name, changed_at in page}


async def test_get_returns_written_bytes(objects: ObjectStore) -> None:
    data = bytes(range(256)) * 1000
    await objects.put("a.png", data)
    assert await objects.get("a.png") == data


async def test_empty_file_is_stored(objects: ObjectStore) -> None:
    await objects.put("a.png", b"")
    assert await objects.get("a.png") == b""
    assert set(await listed(objects)) == {"a.png"}


async def test_put_replaces_whole_file(objects: ObjectStore) -> None:
    await objects.put("a.png", b"long" * 1000)
    await objects.put("a.png", b"short")
    assert await objects.get("a.png") == b"short"


async def test_get_of_missing_file_returns_none(objects: ObjectStore) -> None:
    await objects.put("a.png", b"image")
    for name in ("b.png", "a", "A.png"):
        assert await objects.get(name) is None


async def test_delete_is_idempotent(objects: ObjectStore) -> None:
    await objects.put("a.png", b"image")
    await objects.put("b.png", b"image")
    for _ in range(2):
        await objects.delete("a.png")
    assert await objects.get("a.png") is None
    assert set(await listed(objects)) == {"b.png"}


async def test_empty_store_lists_nothing(objects: ObjectStore) -> None:
    assert await listed(objects) == {}


async def test_pages_list_every_file_once_with_modification_time(objects: ObjectStore) -> None:
    names = [f"{number}.png" for number in range(40)]
    await asyncio.gather(*(objects.put(name, b"image") for name in names))
    pages = [page async for page in objects.pages()]
    assert sorted(name for page in pages for name, _ in page) == sorted(names)
    now = datetime.now(UTC)
    assert all(abs(now - changed_at) < timedelta(minutes=5) for page in pages for _, changed_at in page)
