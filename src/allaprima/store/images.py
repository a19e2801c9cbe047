"""Pictures: their files in an object store, their rows in the database.

Files are written first and removed last, so a row always has its file; a file without a row is an orphan that
`sweep` removes. The object store is obstore's: a local folder by default.
"""

import asyncio
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore
from sqlalchemy import delete, select

from allaprima.errors import StoreError
from allaprima.store.database import Database
from allaprima.store.jobs import ImageRow, image_from_row
from allaprima.store.schema import images

logger = logging.getLogger(__name__)

#: A file without a row is an orphan when it is older than this: its job can't be about to commit any more.
ORPHAN_AGE = timedelta(hours=1)


class Images:
    """The pictures of all jobs."""

    def __init__(self, database: Database, folder: Path) -> None:
        """folder: where the files go; made if need be. Raises `StoreError` when it can't be."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreError(f"the image folder {folder} can't be used: {exc.strerror}") from exc
        self._database = database
        self._folder = folder
        self._objects = LocalStore(folder)

    async def put(self, object_name: str, data: bytes) -> None:
        """Write a file and wait until it is on the disk. Raises `StoreError` when that can't be done."""
        try:
            await self._objects.put_async(object_name, data)
            await asyncio.to_thread(self._sync, object_name)
        except (BaseError, OSError) as exc:
            logger.exception("could not write %s", object_name)
            raise StoreError("the picture could not be written to the image store") from exc

    def _sync(self, object_name: str) -> None:
        """Flush the file and its folder's entry; the object store does neither."""
        path = self._folder / object_name
        for target in (path, path.parent):
            descriptor = os.open(target, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    async def get(self, image_id: str, now: float) -> tuple[ImageRow, bytes] | None:
        """Return a picture that is not expired, row and file. Raises `StoreError` when its file can't be read."""
        async with self._database.read() as connection:
            wanted = select(images).where(images.c.id == image_id, images.c.expires_at > now)
            row = (await connection.execute(wanted)).first()
        if row is None:
            return None
        picture = image_from_row(row)
        try:
            found = await self._objects.get_async(picture.object_name)
            return picture, bytes(await found.bytes_async())
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as exc:
            logger.exception("could not read %s", picture.object_name)
            raise StoreError("the picture could not be read from the image store") from exc

    async def sweep(self, now: float) -> int:
        """Remove expired pictures and orphaned files; return how many files went.

        Raises `StoreError` when the store can't do its work; what is left is an orphan of the next sweep.
        """
        async with self._database.write() as connection:
            expired = images.c.expires_at <= now
            names = set((await connection.execute(select(images.c.object_name).where(expired))).scalars())
            await connection.execute(delete(images).where(expired))
        try:
            names.update(await self._orphans(now))
            for name in names:
                with suppress(NotFoundError, FileNotFoundError):
                    await self._objects.delete_async(name)
        except (BaseError, OSError) as exc:
            logger.exception("could not sweep the image store")
            raise StoreError("the image store can't be swept") from exc
        return len(names)

    async def _orphans(self, now: float) -> list[str]:
        before = datetime.fromtimestamp(now, UTC) - ORPHAN_AGE
        async with self._database.read() as connection:
            known = set((await connection.execute(select(images.c.object_name))).scalars())
        listed = await asyncio.to_thread(lambda: [meta for page in self._objects.list() for meta in page])
        return [meta["path"] for meta in listed if meta["path"] not in known and meta["last_modified"] < before]
