"""Stored images: rows and files, expiry, and the sweep of expired images and of files without a row."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import StoredImage
from allaprima.domain.ports import ObjectStore
from allaprima.errors import ImageDamaged, StoreError
from allaprima.store.database import Database
from allaprima.store.images import UNSTARRED_TTL_S, ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository
from tests.clock import NOW
from tests.store.backends import count, query, run
from tests.store.factories import new_image, new_job, new_outcome
from tests.store.reaping import WORKER

StoreImage = Callable[..., Awaitable[StoredImage]]
#: Later than every time in the tests.
NEVER = 1e12
LATER = NOW + 1e9
#: A file that is named as an image.
ORPHAN = "0199aa00-0000-7000-8000-000000000000.png"


@pytest.fixture
def images(database: Database, objects: ObjectStore) -> ImageRepository:
    return ImageRepository(database, objects)


@pytest.fixture
def store_image(database: Database, images: ImageRepository, owner: ApiKey) -> StoreImage:
    """Return a function that stores the row and file of an image of a finished job."""

    async def store_image(name: str, data: bytes = b"image", expires_at: float = NOW + 60) -> StoredImage:
        transitions = JobTransitions(database)
        await transitions.admit(new_job(owner), queue_size=100)
        job = (await transitions.lease(WORKER, NOW)).job
        assert job is not None
        image = new_image(
            job,
            id=name,
            object_name=f"{name}.png",
            size_bytes=len(data),
            expires_at=expires_at,
            sha256=hashlib.sha256(data).hexdigest(),
            nsfw_score=None,
        )
        await images.put(image.object_name, data)
        assert await transitions.succeed(job, NOW, new_outcome(image))
        return image

    return store_image


async def files(objects: ObjectStore) -> dict[str, float]:
    """The names of all files, with the unix times of their last change."""
    return {name: changed_at.timestamp() async for page in objects.pages() for name, changed_at in page}


async def rows(database: Database) -> list[str]:
    return [name for (name,) in await query(database, "SELECT id FROM images ORDER BY id")]


async def test_image_is_returned_unchanged(images: ImageRepository, store_image: StoreImage) -> None:
    data = bytes(range(256)) * 1000
    image = await store_image("a", data)
    assert await images.get("a", NOW) == (image, data)
    assert await images.find("a", NOW) == image


async def test_image_survives_server_restart(database: Database, objects: ObjectStore, store_image: StoreImage) -> None:
    image = await store_image("a")
    assert await ImageRepository(database, objects).get("a", NOW) == (image, b"image")


async def test_get_of_unknown_image_returns_none(images: ImageRepository, store_image: StoreImage) -> None:
    await store_image("a")
    for name in ("b", "a.png", "", "../allaprima.db", "%"):
        assert await images.get(name, NOW) is None


async def test_expired_image_is_not_found(images: ImageRepository, store_image: StoreImage) -> None:
    await store_image("a", expires_at=NOW + 60)
    assert await images.get("a", NOW + 59.9) is not None
    assert await images.get("a", NOW + 60) is None


async def test_image_without_file_is_not_found(
    images: ImageRepository, objects: ObjectStore, store_image: StoreImage
) -> None:
    await store_image("a")
    await objects.delete("a.png")
    assert await images.get("a", NOW) is None


async def test_copy_has_same_bytes(images: ImageRepository, objects: ObjectStore, store_image: StoreImage) -> None:
    image = await store_image("a", b"image")
    await images.copy(image, "b.png")
    assert await objects.get("b.png") == b"image"
    with pytest.raises(StoreError, match="no longer"):
        await images.copy(replace(image, object_name="missing.png"), "c.png")


async def test_removed_image_has_neither_row_nor_file(
    images: ImageRepository, objects: ObjectStore, database: Database, store_image: StoreImage
) -> None:
    await store_image("a")
    await store_image("b")
    for _ in range(2):
        await images.remove("a")
    assert await rows(database) == ["b"]
    assert set(await files(objects)) == {"b.png"}


# Stars and bytes ----------------------------------------------------------------------------------------------------


async def test_sweep_keeps_starred_image_and_job(
    database: Database, images: ImageRepository, store_image: StoreImage, owner: ApiKey
) -> None:
    starred, other = await store_image("starred"), await store_image("other")
    await images.star(owner.account_id, "starred", 1000, NOW)
    assert await images.sweep(LATER) == 1
    removed, names = await JobTransitions(database).remove_old(LATER, 10)
    assert (removed, names) == (1, [])
    assert [job for (job,) in await query(database, "SELECT id FROM jobs")] == [starred.job_id] != [other.job_id]
    assert await images.get("starred", LATER) is not None
    assert (await JobRepository(database).images_of([starred.job_id], LATER))[starred.job_id]


async def test_unstarred_image_is_swept_at_its_time(
    images: ImageRepository, store_image: StoreImage, owner: ApiKey
) -> None:
    await store_image("a", expires_at=NOW + 60)
    await images.star(owner.account_id, "a", 1000, NOW)
    await images.unstar(owner.account_id, "a", NOW + 30)
    assert await images.sweep(NOW + 59) == 0
    await images.star(owner.account_id, "a", 1000, NOW + 59)
    await images.unstar(owner.account_id, "a", NOW + 60)
    assert await images.sweep(NOW + 59 + UNSTARRED_TTL_S) == 0
    assert await images.sweep(NOW + 60 + UNSTARRED_TTL_S) == 1


async def test_total_is_the_sum_of_all_images_after_every_change(
    database: Database, images: ImageRepository, store_image: StoreImage
) -> None:
    async def total() -> int:
        [(summed,)] = await query(database, "SELECT coalesce(sum(size_bytes), 0) FROM images")
        assert await images.total_bytes() == summed
        return int(summed)

    assert await total() == 0
    for name, size in (("a", 1), ("b", 20), ("c", 300), ("d", 4000)):
        await store_image(name, b"x" * size, expires_at=NOW + size)
    assert await total() == 4321
    await images.remove("a")
    await images.remove("a")
    assert await total() == 4320
    await images.sweep(NOW + 20)
    assert await total() == 4300
    [(job_id,)] = await query(database, "SELECT job_id FROM images WHERE id = 'c'")
    await JobTransitions(database).remove(job_id)
    assert await total() == 4000


# Sweeping -----------------------------------------------------------------------------------------------------------


async def test_sweep_removes_expired_image(
    images: ImageRepository, objects: ObjectStore, database: Database, store_image: StoreImage
) -> None:
    await store_image("old", expires_at=NOW + 60)
    await store_image("new", expires_at=NOW + 61)
    assert await images.sweep(NOW + 60) == 1
    assert set(await files(objects)) == {"new.png"}
    assert await rows(database) == ["new"]
    assert await images.get("new", NOW + 60) is not None


async def test_expired_images_are_removed_by_pages_until_the_server_stops(
    images: ImageRepository, database: Database, store_image: StoreImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allaprima.store.images.EXPIRED_AT_ONCE", 2)
    for number in range(5):
        await store_image(f"old-{number}", expires_at=NOW + number)
    stops = iter([False, False, True, True])
    assert await images.sweep(NOW + 60, lambda: next(stops)) == 4
    assert await rows(database) == ["old-4"]
    assert await images.sweep(NOW + 60) == 1
    assert await rows(database) == []


async def test_sweep_keeps_unexpired_images(
    images: ImageRepository, objects: ObjectStore, store_image: StoreImage
) -> None:
    assert await images.sweep(NOW) == 0
    await store_image("a")
    assert await images.sweep(NOW) == 0
    assert set(await files(objects)) == {"a.png"}


async def test_second_sweep_removes_nothing(images: ImageRepository, store_image: StoreImage) -> None:
    await store_image("a")
    assert await images.sweep(NOW + 60) == 1
    assert await images.sweep(NOW + 60) == 0


@pytest.mark.parametrize(("past_s", "is_removed"), [(2, True), (0, False), (-1, False), (-3660, False)])
async def test_sweep_removes_only_orphans_older_than_orphan_age(
    images: ImageRepository, objects: ObjectStore, store_image: StoreImage, past_s: int, is_removed: bool
) -> None:
    await store_image("kept", expires_at=NEVER)
    await images.put(ORPHAN, b"orphan")
    written_at = (await files(objects))[ORPHAN]
    age = objects.orphan_age.total_seconds()
    assert await images.sweep(written_at + age + past_s) == is_removed
    assert set(await files(objects)) == ({"kept.png"} if is_removed else {"kept.png", ORPHAN})


async def test_sweep_continues_after_missing_file(
    images: ImageRepository, objects: ObjectStore, store_image: StoreImage
) -> None:
    await store_image("a")
    await store_image("b")
    await objects.delete("a.png")
    await images.sweep(NOW + 60)
    assert await files(objects) == {}


async def test_file_left_by_interrupted_sweep_is_removed_later(
    images: ImageRepository, objects: ObjectStore, database: Database, store_image: StoreImage
) -> None:
    """The sweep removes rows first, so an interruption leaves a file without a row, never a row without a file."""
    name = ORPHAN.removesuffix(".png")
    await store_image(name, expires_at=NOW)
    await run(database, "DELETE FROM images")
    assert await count(database, "images") == 0
    written_at = (await files(objects))[ORPHAN]
    assert await images.sweep(written_at + objects.orphan_age.total_seconds() + 1) == 1
    assert await files(objects) == {}


async def test_changed_file_is_never_returned(
    images: ImageRepository, objects: ObjectStore, store_image: StoreImage
) -> None:
    image = await store_image("a", b"image")
    await objects.put("a.png", b"iMage")
    for read in (images.get("a", NOW), images.file(image), images.copy(image, "b.png")):
        with pytest.raises(ImageDamaged, match="was changed"):
            await read
    assert await objects.get("b.png") is None


class PagedObjects(ObjectStore):
    """Files in memory with pages of two names, all last changed at `NOW`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def put(self, name: str, data: bytes) -> None:
        self.files[name] = data

    async def get(self, name: str) -> bytes | None:
        return self.files.get(name)

    async def delete(self, name: str) -> None:
        self.files.pop(name, None)

    async def pages(self) -> AsyncIterator[list[tuple[str, datetime]]]:
        names = sorted(self.files)
        for start in range(0, len(names), 2):
            yield [(name, datetime.fromtimestamp(NOW).astimezone()) for name in names[start : start + 2]]


class TestManyPages:
    """A listing of several pages."""

    @pytest.fixture
    def objects(self) -> PagedObjects:
        return PagedObjects()

    async def test_sweep_removes_orphans_of_every_page(
        self, images: ImageRepository, objects: PagedObjects, store_image: StoreImage
    ) -> None:
        await store_image("m-kept", expires_at=NEVER)
        for name in "abcdefxyz":
            await images.put(f"{name}.png", b"orphan")
        assert await images.sweep(NOW + 3601) == 9
        assert set(objects.files) == {"m-kept.png"}
