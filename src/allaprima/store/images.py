"""Images: the files in an object store, and one database row for each file.

A file is written before its row and removed after it, so every row has a file. A file without a row is an orphan, which
`sweep` removes.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, update

from allaprima.domain.jobs import ImageFilter, Job, StoredImage
from allaprima.domain.ports import ObjectStore
from allaprima.errors import ImageDamaged, ImageNotFound, StarLimitReached, StoreError
from allaprima.store import dialect
from allaprima.store.database import Database, Repository, reads, writes
from allaprima.store.image_rows import IS_STARRED, is_alive, remove_images, searchable
from allaprima.store.rows import JOB_COLUMNS, image_from_row, readable, readable_job
from allaprima.store.schema import accounts, images, jobs

logger = logging.getLogger(__name__)

#: How long an image stays at least after it was unstarred, in seconds.
UNSTARRED_TTL_S = 86_400.0
#: Expired images that one transaction removes, so that it delays no other for long.
EXPIRED_AT_ONCE = 100


class ImageRepository(Repository):
    """The images of all jobs."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        super().__init__(database)
        self._objects = objects
        #: When orphans were last searched for.
        self._orphans_at: float | None = None

    async def put(self, object_name: str, data: bytes) -> None:
        """Write a file durably. Raises `StoreError`."""
        await self._objects.put(object_name, data)

    async def is_available(self) -> bool:
        """Whether the image store answers now, so that a file can be written."""
        return await self._objects.is_available()

    @reads
    def find(
        self, connection: Connection, image_id: str, now: float, account_id: str | None = None
    ) -> StoredImage | None:
        """Return the row of an image that has not expired. account_id: only an image of this account."""
        return _find(connection, image_id, now, account_id)

    @reads
    def page(
        self, connection: Connection, account_id: str, wanted: ImageFilter, limit: int, now: float
    ) -> list[tuple[StoredImage, Job]]:
        """Return an account's newest images that match the filter, with their jobs, newest first.

        At most `limit` images; rows that this version can't read are skipped.
        """
        query = select(images).where(images.c.account_id == account_id, is_alive(now))
        if wanted.is_starred:
            query = query.where(IS_STARRED)
        if wanted.key_id is not None:
            query = query.where(images.c.key_id == wanted.key_id)
        if wanted.before is not None:
            query = query.where(images.c.id < wanted.before)
        for word in searchable(wanted.words).split():
            query = query.where(dialect.Contains(images.c.search_text, word))
        return _with_jobs(connection, query.order_by(images.c.id.desc()).limit(limit))

    @reads
    def of_account(
        self, connection: Connection, account_id: str, image_ids: Sequence[str], now: float
    ) -> dict[str, tuple[StoredImage, Job]]:
        """Return those of the images that the account has, with their jobs, by id."""
        query = select(images).where(images.c.id.in_(image_ids), images.c.account_id == account_id, is_alive(now))
        return {image.id: (image, job) for image, job in _with_jobs(connection, query)}

    @writes
    def star(self, connection: Connection, account_id: str, image_id: str, max_bytes: int, now: float) -> None:
        """Keep an image until it is unstarred. max_bytes: most bytes of the account's starred images.

        Raises `ImageNotFound` or `StarLimitReached`.
        """
        image = _find(connection, image_id, now, account_id, is_locked=True)
        if image is None:
            raise ImageNotFound
        if image.is_starred:
            return
        dialect.lock(connection, f"stars {account_id}")
        starred = select(func.coalesce(dialect.Total(images.c.size_bytes), 0)).where(
            images.c.account_id == account_id, IS_STARRED
        )
        if connection.execute(starred).scalar_one() + image.size_bytes > max_bytes:
            raise StarLimitReached(max_bytes)
        connection.execute(update(images).where(images.c.id == image_id).values(is_starred=1))

    @writes
    def unstar(self, connection: Connection, account_id: str, image_id: str, now: float) -> None:
        """Let an image expire at its time, or in `UNSTARRED_TTL_S` if that has passed. Raises `ImageNotFound`."""
        image = _find(connection, image_id, now, account_id, is_locked=True)
        if image is None:
            raise ImageNotFound
        if image.is_starred:
            expires_at = image.expires_at if image.expires_at > now else now + UNSTARRED_TTL_S
            values = {"is_starred": 0, "expires_at": expires_at}
            connection.execute(update(images).where(images.c.id == image_id).values(values))

    @reads
    def total_bytes(self, connection: Connection) -> int:
        """Return the bytes of all images of all accounts."""
        return int(connection.execute(select(func.coalesce(dialect.Total(accounts.c.image_bytes), 0))).scalar_one())

    async def file(self, image: StoredImage) -> bytes | None:
        """Return the file of an image, or None if it does not exist.

        Raises `ImageDamaged` for a file with other bytes than those that were generated, and other `StoreError`s.
        """
        data = await self._objects.get(image.object_name)
        if data is not None and hashlib.sha256(data).hexdigest() != image.sha256:
            logger.error("the file %s has other bytes than the image that was stored", image.object_name)
            raise ImageDamaged
        return data

    async def signed_url(self, image: StoredImage, seconds: float) -> str | None:
        """Return a URL of the image store that returns an image for some seconds; None if the store has none."""
        return await self._objects.signed_url(image.object_name, seconds)

    async def get(self, image_id: str, now: float) -> tuple[StoredImage, bytes] | None:
        """Return the row and the file of an image that has not expired. Raises `StoreError` when reading fails."""
        image = await self.find(image_id, now)
        if image is None:
            return None
        data = await self.file(image)
        return None if data is None else (image, data)

    async def copy(self, image: StoredImage, new_name: str) -> None:
        """Copy the file of an image. Raises `StoreError` when the file does not exist or the store fails."""
        data = await self.file(image)
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

    async def sweep(self, now: float, is_stopping: Callable[[], bool] = lambda: False) -> int:
        """Remove expired images and orphaned files; return the number of files removed.

        is_stopping: whether the rest is left to the next sweep; asked after every page. Raises `StoreError` when the
        store fails; the next sweep removes the files that remain.
        """
        removed = await self.remove_expired(now, is_stopping)
        return removed + (0 if is_stopping() else await self._sweep_orphans(now, is_stopping))

    async def remove_expired(self, now: float, is_stopping: Callable[[], bool] = lambda: False) -> int:
        """Remove expired images; return their number. Raises `StoreError` as `sweep` does."""
        removed, is_complete = 0, False
        while not is_complete and not is_stopping():
            names = await self._remove_expired_rows(now)
            await self.remove_files(names)
            removed, is_complete = removed + len(names), len(names) < EXPIRED_AT_ONCE
        return removed

    @writes
    def _remove_expired_rows(self, connection: Connection, now: float) -> list[str]:
        """Remove the rows of at most `EXPIRED_AT_ONCE` expired images; return the names of their files."""
        expired = select(images.c.id).where(images.c.expires_at <= now, ~IS_STARRED).order_by(images.c.expires_at)
        # An image that another transaction removes or stars is skipped.
        page = expired.limit(EXPIRED_AT_ONCE).with_for_update(skip_locked=True)
        return remove_images(connection, images.c.id.in_(list(connection.execute(page).scalars())))

    @writes
    def _remove_rows(self, connection: Connection, which: ColumnElement[bool]) -> list[str]:
        return remove_images(connection, which)

    async def _sweep_orphans(self, now: float, is_stopping: Callable[[], bool]) -> int:
        if self._orphans_at is not None and now - self._orphans_at < self._objects.orphans_every_s:
            return 0
        before = datetime.fromtimestamp(now, UTC) - self._objects.orphan_age
        removed = 0
        async for page in self._objects.pages():
            # The rows are read after the listing, so a job that commits in between does not lose its files.
            old = [name for name, changed_at in page if changed_at < before and self._objects.owns(name)]
            orphans = set(old) - await self._with_rows(old)
            await self.remove_files(orphans)
            removed += len(orphans)
            if is_stopping():
                return removed
        self._orphans_at = now
        return removed

    @reads
    def _with_rows(self, connection: Connection, names: list[str]) -> set[str]:
        """Return the names that have a row. A file name is its image's id and an extension."""
        ids = [name.partition(".")[0] for name in names]
        return set(connection.execute(select(images.c.object_name).where(images.c.id.in_(ids))).scalars())


def _find(
    connection: Connection, image_id: str, now: float, account_id: str | None, *, is_locked: bool = False
) -> StoredImage | None:
    query = select(images).where(images.c.id == image_id, is_alive(now))
    if is_locked:
        query = query.with_for_update()
    if account_id is not None:
        query = query.where(images.c.account_id == account_id)
    return next(readable(connection.execute(query), image_from_row), None)


def _with_jobs(connection: Connection, query: Select[Any]) -> list[tuple[StoredImage, Job]]:
    """Return the images of a query with their jobs, in two queries for any number of images."""
    found = list(readable(connection.execute(query), image_from_row))
    wanted = select(*JOB_COLUMNS).where(jobs.c.id.in_({image.job_id for image in found}))
    by_id = {job.id: job for job in map(readable_job, connection.execute(wanted)) if job is not None}
    return [(image, by_id[image.job_id]) for image in found if image.job_id in by_id]
