"""Images: the files in an object store, and one database row for each file.

A file is written before its row and removed after it, so every row has a file. A file without a row is an orphan, which
`sweep` removes.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, delete, select

from allaprima.domain.jobs import StoredImage
from allaprima.domain.ports import ObjectStore
from allaprima.errors import StoreError
from allaprima.store.database import Database, Repository, reads, writes
from allaprima.store.rows import image_from_row, readable
from allaprima.store.schema import images

#: Age from which a file without a row is an orphan. A younger file may belong to a job that has not committed its rows.
ORPHAN_AGE = timedelta(hours=1)


class ImageRepository(Repository):
    """The images of all jobs."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        super().__init__(database)
        self._objects = objects

    async def put(self, object_name: str, data: bytes) -> None:
        """Write a file durably. Raises `StoreError`."""
        await self._objects.put(object_name, data)

    @reads
    def find(self, connection: Connection, image_id: str, now: float) -> StoredImage | None:
        """Return the row of an image that has not expired."""
        wanted = select(images).where(images.c.id == image_id, images.c.expires_at > now)
        return next(readable(connection.execute(wanted), image_from_row), None)

    async def get(self, image_id: str, now: float) -> tuple[StoredImage, bytes] | None:
        """Return the row and the file of an image that has not expired. Raises `StoreError` when reading fails."""
        image = await self.find(image_id, now)
        if image is None:
            return None
        data = await self._objects.get(image.object_name)
        return None if data is None else (image, data)

    async def copy(self, object_name: str, new_name: str) -> None:
        """Copy a file. Raises `StoreError` when the file does not exist or the store fails."""
        data = await self._objects.get(object_name)
        if data is None:
            raise StoreError("the image is no longer in the image store")
        await self.put(new_name, data)

    async def remove(self, image_id: str) -> None:
        """Remove an image: first the row, so that the result cache stops returning the image, then the file."""
        await self.remove_files(await self._remove_rows(images.c.id == image_id))

    async def remove_files(self, names: Iterable[str]) -> None:
        """Remove files whose rows were removed.

        Raises `StoreError`; the files that remain are orphans, and the next sweep removes them.
        """
        for name in names:
            await self._objects.delete(name)

    async def sweep(self, now: float) -> int:
        """Remove expired images and orphaned files; return the number of files removed.

        Raises `StoreError` when the store fails; the next sweep removes the files that remain.
        """
        names = await self._remove_rows(images.c.expires_at <= now)
        await self.remove_files(names)
        return len(names) + await self._sweep_orphans(now)

    @writes
    def _remove_rows(self, connection: Connection, which: ColumnElement[bool]) -> list[str]:
        return list(connection.execute(delete(images).where(which).returning(images.c.object_name)).scalars())

    async def _sweep_orphans(self, now: float) -> int:
        before = datetime.fromtimestamp(now, UTC) - ORPHAN_AGE
        removed = 0
        async for page in self._objects.pages():
            # The rows are read after the listing, so a job that commits in between does not lose its files.
            old = [name for name, changed_at in page if changed_at < before]
            orphans = set(old) - await self._with_rows(old)
            await self.remove_files(orphans)
            removed += len(orphans)
        return removed

    @reads
    def _with_rows(self, connection: Connection, names: list[str]) -> set[str]:
        """Return the names that have a row. A file name is its image's id and an extension."""
        ids = [name.partition(".")[0] for name in names]
        return set(connection.execute(select(images.c.object_name).where(images.c.id.in_(ids))).scalars())
