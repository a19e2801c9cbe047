"""Thumbnails of stored images: made on their first request, and kept in memory while they are requested."""

import asyncio
import io
from collections import OrderedDict
from weakref import WeakValueDictionary

from PIL import Image

from allaprima.domain.clock import Clock
from allaprima.domain.jobs import StoredImage
from allaprima.errors import ImageNotFound, StoreError
from allaprima.store.images import ImageRepository

#: Longest side in pixels.
SIDE = 320
CONTENT_TYPE = "image/webp"
#: Of Pillow's WebP encoder. Typical thumbnails have 4 to 10 kB.
QUALITY = 60
#: Most bytes of the thumbnails that are kept.
CACHE_BYTES = 32 * 2**20
#: Number of images that are decoded concurrently. The engine needs the other cores.
CONCURRENCY = 2


def make_thumbnail(data: bytes) -> bytes:
    """Return the WebP file of an image, scaled to at most `SIDE` pixels a side and never enlarged.

    data: a PNG, JPEG or WebP file. The thumbnail contains no metadata. Raises `StoreError` for a damaged file.
    """
    file = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data)) as image:
            # Decodes a JPEG at a fraction of its size.
            image.draft("RGB", (SIDE, SIDE))
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
            small.save(file, "WEBP", quality=QUALITY, method=4)
    except (OSError, SyntaxError, ValueError) as exc:
        raise StoreError("the image file is damaged") from exc
    return file.getvalue()


class ByteCache:
    """Files by name, at most some bytes together; those that were not read for the longest time are dropped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._files: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, name: str) -> bytes | None:
        """Return a file, or None if it is not kept."""
        if name in self._files:
            self._files.move_to_end(name)
        return self._files.get(name)

    def put(self, name: str, data: bytes) -> None:
        """Keep a file, unless it exceeds all bytes."""
        self._bytes += len(data) - len(self._files.pop(name, b""))
        self._files[name] = data
        while self._bytes > self._max_bytes:
            _, dropped = self._files.popitem(last=False)
            self._bytes -= len(dropped)


class Thumbnails:
    """Makes and keeps the thumbnails of stored images."""

    def __init__(self, images: ImageRepository, clock: Clock, max_bytes: int = CACHE_BYTES) -> None:
        """max_bytes: most bytes of the thumbnails that are kept in memory."""
        self._images = images
        self._clock = clock
        self._kept = ByteCache(max_bytes)
        self._decoding = asyncio.Semaphore(CONCURRENCY)
        #: One lock for each thumbnail that is being made, so that concurrent requests make it once.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def find(self, image_id: str) -> StoredImage:
        """Return the image of a thumbnail. Raises `ImageNotFound`, also for a withheld image."""
        image = await self._images.find(image_id, self._clock())
        if image is None or image.is_flagged:
            raise ImageNotFound
        return image

    async def read(self, image: StoredImage) -> bytes:
        """Return the thumbnail of an image, a WebP file. Raises `ImageNotFound` or `StoreError`."""
        if found := self._kept.get(image.id):
            return found
        async with self._locks.setdefault(image.id, asyncio.Lock()):
            if found := self._kept.get(image.id):
                return found
            async with self._decoding:
                data = await self._images.file(image)
                if data is None:
                    raise ImageNotFound
                made = await asyncio.to_thread(make_thumbnail, data)
            self._kept.put(image.id, made)
            return made
