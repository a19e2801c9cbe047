"""Pictures: their files in an object store, their rows in the database.

Files are written first and removed last, so a row always has its file; a file without a row is an orphan that
`sweep` removes. The object store is obstore's: a local folder by default.
"""

import asyncio
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore
from sqlalchemy import ColumnElement, Connection, delete, select

from allaprima.domain.jobs import StoredImage
from allaprima.errors import StoreError
from allaprima.store.database import Database, reads, writes
from allaprima.store.rows import image_from_row
from allaprima.store.schema import images

logger = logging.getLogger(__name__)

#: Files that a sweep looks at together.
PAGE = 500
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

    @reads
    def find(self, connection: Connection, image_id: str, now: float) -> StoredImage | None:
        """Return the row of a picture that is not expired."""
        wanted = select(images).where(images.c.id == image_id, images.c.expires_at > now)
        row = connection.execute(wanted).first()
        return image_from_row(row) if row else None

    async def get(self, image_id: str, now: float) -> tuple[StoredImage, bytes] | None:
        """Return a picture that is not expired, row and file. Raises `StoreError` when its file can't be read."""
        picture = await self.find(image_id, now)
        if picture is None:
            return None
        data = await self._read(picture.object_name)
        return None if data is None else (picture, data)

    async def _read(self, object_name: str) -> bytes | None:
        try:
            found = await self._objects.get_async(object_name)
            return bytes(await found.bytes_async())
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as exc:
            logger.exception("could not read %s", object_name)
            raise StoreError("the picture could not be read from the image store") from exc

    async def copy(self, object_name: str, new_name: str) -> None:
        """Write a file that is like another. Raises `StoreError` when that can't be done, or the other is gone."""
        data = await self._read(object_name)
        if data is None:
            raise StoreError("the picture is no longer in the image store")
        await self.put(new_name, data)

    async def remove(self, image_id: str) -> None:
        """Remove a picture, row first; whoever was promised it from the result cache is not given it any more."""
        await self.remove_files(await self._remove_rows(images.c.id == image_id))

    async def remove_files(self, names: Iterable[str]) -> None:
        """Remove files whose rows are gone. Raises `StoreError`; what is left is an orphan of the next sweep."""
        try:
            for name in names:
                with suppress(NotFoundError, FileNotFoundError):
                    await self._objects.delete_async(name)
        except (BaseError, OSError) as exc:
            logger.exception("could not remove pictures from the image store")
            raise StoreError("the image store can't remove a picture") from exc

    async def sweep(self, now: float) -> int:
        """Remove expired pictures and orphaned files; return how many files went.

        Raises `StoreError` when the store can't do its work; what is left is an orphan of the next sweep.
        """
        names = await self._remove_rows(images.c.expires_at <= now)
        await self.remove_files(names)
        return len(names) + await self._sweep_orphans(now)

    @writes
    def _remove_rows(self, connection: Connection, which: ColumnElement[bool]) -> list[str]:
        return list(connection.execute(delete(images).where(which).returning(images.c.object_name)).scalars())

    async def _sweep_orphans(self, now: float) -> int:
        """Remove the files without a row, page after page of what the store lists."""
        before = datetime.fromtimestamp(now, UTC) - ORPHAN_AGE
        pages, removed = self._objects.list(chunk_size=PAGE), 0
        while True:
            try:
                page = await asyncio.to_thread(next, pages, None)
            except (BaseError, OSError) as exc:
                logger.exception("could not sweep the image store")
                raise StoreError("the image store can't be swept") from exc
            if page is None:
                return removed
            # Looked up after the listing: what was written meanwhile is not in it.
            old = [meta["path"] for meta in page if meta["last_modified"] < before]
            orphans = set(old) - await self._known(old)
            await self.remove_files(orphans)
            removed += len(orphans)

    @reads
    def _known(self, connection: Connection, names: list[str]) -> set[str]:
        """Return which of some files are pictures'. A file is named after its picture's id."""
        ids = [name.partition(".")[0] for name in names]
        return set(connection.execute(select(images.c.object_name).where(images.c.id.in_(ids))).scalars())
