"""An object store in a local folder; every written file is flushed to the disk."""

import asyncio
import errno
import logging
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore

from allaprima.domain.ports import ObjectStore
from allaprima.errors import StoreError, StoreFull
from allaprima.store.data_folder import FILE_MODE, FOLDER_MODE

logger = logging.getLogger(__name__)

#: Number of objects in one page of a listing.
PAGE = 500
#: Seconds between two attempts to write a file when no file descriptor is free.
DESCRIPTOR_WAIT_S = 0.2
_STAGED = re.compile(r"#\d+$")


class LocalObjectStore(ObjectStore):
    """A folder of objects."""

    def __init__(self, folder: Path, *, is_shared: bool = False) -> None:
        """folder: created if missing. is_shared: whether other servers write into it now.

        Raises `StoreError` when it can't be created.
        """
        try:
            folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            _remove_staged(folder, self.orphan_age.total_seconds() if is_shared else 0.0)
        except OSError as exc:
            raise StoreError(f"the image folder {folder} can't be used: {exc.strerror}") from exc
        self._folder = folder
        self._objects = LocalStore(folder)

    async def put(self, name: str, data: bytes) -> None:
        """See `ObjectStore`; returns after the file is flushed to the disk."""
        try:
            while not await self._write(name, data):  # noqa: ASYNC110 - no event reports a free descriptor
                # Connections have all file descriptors. A finished image is worth the wait for one.
                await asyncio.sleep(DESCRIPTOR_WAIT_S)
        except (BaseError, OSError) as exc:
            logger.exception("could not write the file %s to the image store", name)
            if _is_from_system(exc, errno.ENOSPC, errno.EDQUOT):
                raise StoreFull from exc
            raise StoreError("the image could not be written to the image store") from exc

    async def _write(self, name: str, data: bytes) -> bool:
        """Write and flush a file; return False when the process has no free file descriptor."""
        try:
            await self._objects.put_async(name, data)
            await asyncio.to_thread(self._flush, name)
        except (BaseError, OSError) as exc:
            if not _is_from_system(exc, errno.EMFILE, errno.ENFILE):
                raise
            logger.warning("no file descriptor is free for the image store; the image waits for one")
            return False
        return True

    def _flush(self, name: str) -> None:
        """Flush the file and its directory entry: obstore flushes neither."""
        path = self._folder / name
        for target in (path, path.parent):
            descriptor = os.open(target, os.O_RDONLY)
            try:
                if target == path:
                    _make_private(descriptor)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    async def get(self, name: str) -> bytes | None:
        """See `ObjectStore`."""
        try:
            found = await self._objects.get_async(name)
            return bytes(await found.bytes_async())
        except (NotFoundError, FileNotFoundError):
            return None
        except (BaseError, OSError) as exc:
            logger.exception("could not read the file %s from the image store", name)
            raise StoreError("the image could not be read from the image store") from exc

    async def delete(self, name: str) -> None:
        """See `ObjectStore`."""
        try:
            with suppress(NotFoundError, FileNotFoundError):
                await self._objects.delete_async(name)
        except (BaseError, OSError) as exc:
            logger.exception("could not remove the file %s from the image store", name)
            raise StoreError("the image could not be removed from the image store") from exc

    async def pages(self) -> AsyncIterator[list[tuple[str, datetime]]]:
        """See `ObjectStore`."""
        listing = self._objects.list(chunk_size=PAGE)
        while True:
            try:
                page = await asyncio.to_thread(next, listing, None)
            except (BaseError, OSError) as exc:
                logger.exception("could not list the files of the image store")
                raise StoreError("the files of the image store could not be listed") from exc
            if page is None:
                return
            yield [(meta["path"], meta["last_modified"]) for meta in page]


def _remove_staged(folder: Path, min_age_s: float) -> None:
    """Remove the files that a killed server had not yet renamed; obstore names them `<name>#<number>`."""
    before = time.time() - min_age_s
    for path in folder.iterdir():
        # Another server may rename or remove a file meanwhile.
        with suppress(FileNotFoundError):
            if _STAGED.search(path.name) and (min_age_s == 0 or path.stat().st_mtime < before):
                path.unlink()


def _is_from_system(exc: Exception, *numbers: int) -> bool:
    """Whether an error has one of the system's numbers, which obstore writes into its messages."""
    return any(f"(os error {number})" in str(exc) or exc.args[:1] == (number,) for number in numbers)


def _make_private(descriptor: int) -> None:
    """Remove other users' access to a file, where the file system has permissions."""
    with suppress(OSError):
        os.fchmod(descriptor, FILE_MODE)
