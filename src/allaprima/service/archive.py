"""ZIP archives of stored images, written while they are sent: one image at a time is in memory."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from allaprima.domain.clock import Clock
from allaprima.domain.file_names import name_of
from allaprima.domain.jobs import Job, StoredImage
from allaprima.errors import ImageNotFound, StoreError
from allaprima.store.images import ImageRepository

#: The first day that the format can express.
_FIRST_DAY = datetime(1980, 1, 1, tzinfo=UTC)


class _Part(io.RawIOBase):
    """A file of which only the bytes since the last `take` are in memory.

    It is seekable within them, so that `zipfile` writes size and checksum before an image, and not behind it, where
    readers of a stream can't use them.
    """

    def __init__(self) -> None:
        self._start = 0
        self._bytes = io.BytesIO()

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the whole file."""
        return self._start + self._bytes.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position since the last `take`."""
        assert whence == io.SEEK_SET
        return self._start + self._bytes.seek(offset - self._start)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write bytes at the position."""
        return self._bytes.write(data)

    def take(self) -> bytes:
        """Return the bytes since the last call. Those before can't be changed afterwards."""
        data = self._bytes.getvalue()
        self._start += len(data)
        self._bytes = io.BytesIO()
        return data


class Archives:
    """Writes archives of an account's images."""

    def __init__(self, images: ImageRepository, clock: Clock) -> None:
        self._images = images
        self._clock = clock

    async def open(self, account_id: str, image_ids: Sequence[str]) -> AsyncIterator[bytes]:
        """Return the parts of an archive of images, in the given order.

        The first image is read at once, so that a store that is away is reported before the archive begins. Raises
        `ImageNotFound`, which names the ids, and `StoreError`.
        """
        found = await self._images.of_account(account_id, image_ids, self._clock())
        if missing := [image_id for image_id in image_ids if image_id not in found]:
            raise _not_found(*missing)
        parts = self._parts([found[image_id] for image_id in image_ids])
        return _joined(await anext(parts), parts)

    async def _parts(self, images: Sequence[tuple[StoredImage, Job]]) -> AsyncIterator[bytes]:
        """Yield an archive in parts. Raises `StoreError`, so that the archive breaks off, if an image is removed."""
        part = _Part()
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for number, (image, job) in enumerate(images, 1):
                data = await self._images.file(image)
                if data is None and number == 1:
                    raise _not_found(image.id)
                if data is None:
                    raise StoreError(f"the image {image.id} was removed while its archive was written")
                await asyncio.to_thread(archive.writestr, _entry(image, job, number), data)
                yield part.take()
        yield part.take()


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


def _not_found(*image_ids: str) -> ImageNotFound:
    return ImageNotFound(f"There are no such images, or they have expired: {', '.join(image_ids)}")


def _entry(image: StoredImage, job: Job, number: int) -> zipfile.ZipInfo:
    """Return the entry of an image. number: of the image in the archive, from 1, which makes the name unique."""
    suffix = image.object_name.rpartition(".")[2]
    at = max(datetime.fromtimestamp(image.created_at, UTC), _FIRST_DAY)
    return zipfile.ZipInfo(f"{name_of(job.request.prompt)}-{image.seed}-{number}.{suffix}", at.timetuple()[:6])
