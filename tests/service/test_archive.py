"""Archives are written in parts: of 500 images, one is in memory at a time."""

import io
import tracemalloc
import zipfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import Job, StoredImage
from allaprima.errors import StoreError
from allaprima.service.archive import Archives
from allaprima.store.images import ImageRepository
from tests.clock import NOW, FakeClock
from tests.store.factories import new_image, new_job

OWNER = ApiKey(id="key", account_id="account", name="first", prefix="abcd1234", created_at=NOW, updated_at=NOW)
SIZE = 400_000


class LargeImages(ImageRepository):
    """Images of `SIZE` bytes that exist only while they are read."""

    def __init__(self) -> None:
        self.lost: set[str] = set()

    async def of_account(
        self, account_id: str, image_ids: Sequence[str], now: float
    ) -> dict[str, tuple[StoredImage, Job]]:
        job = new_job(OWNER)
        images = [replace(new_image(job), id=image_id, object_name=f"{image_id}.png") for image_id in image_ids]
        return {image.id: (image, job) for image in images}

    async def file(self, image: StoredImage) -> bytes | None:
        name = image.object_name
        return None if name in self.lost else name.encode().ljust(SIZE, b".")


async def parts_of(archives: Archives, count: int) -> AsyncIterator[bytes]:
    return await archives.open("account", [f"image-{number}" for number in range(count)])


async def test_memory_of_an_archive_does_not_grow_with_its_images() -> None:
    largest = total = 0
    tracemalloc.start()
    async for part in await parts_of(Archives(LargeImages(), FakeClock()), 300):
        largest, total = max(largest, len(part)), total + len(part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 300 * SIZE
    assert largest < SIZE + 1000
    # The file, its copy in the part, and the copy that is sent; and the list of all entries.
    assert peak < 8 * SIZE


async def test_archive_of_500_images_is_complete() -> None:
    data = b"".join([part async for part in await parts_of(Archives(LargeImages(), FakeClock()), 500)])
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    assert len(set(archive.namelist())) == 500


async def test_archive_breaks_off_where_an_image_was_removed() -> None:
    images = LargeImages()
    parts = await parts_of(Archives(images, FakeClock()), 4)
    received = await anext(parts) + await anext(parts)
    images.lost.add("image-2.png")
    with pytest.raises(StoreError, match="image-2 was removed while its archive was written"):
        await anext(parts)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(received))
