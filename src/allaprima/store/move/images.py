"""Copies the image files of a data folder into an object store, and compares each object with its row."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from allaprima.domain.ports import ObjectStore
from allaprima.errors import ImageStoreUnavailable, StoreError
from allaprima.store.move.folder import FolderRows

#: Images that are copied at a time.
CONCURRENCY = 8
#: Seconds to wait before each repetition while the object store is away, in addition to its own retries.
RETRY_WAITS_S = (1, 2, 4, 8, 16)
#: Most problems that are named.
MAX_PROBLEMS = 20

T = TypeVar("T")


class ImageMover:
    """Copies images by their names. An object that has the bytes of its row already is left as it is."""

    def __init__(self, folder: Path, target: ObjectStore | None) -> None:
        """folder: of the image files. target: None if the images stay in the folder, and are only compared."""
        self._folder = folder
        self._target = target
        self.copied = 0
        self.total = 0
        #: Number of images that the target lacks, or has with other bytes than their rows.
        self.wrong = 0
        #: Sentences that name some of these images.
        self.problems: list[str] = []

    async def run(self, rows: FolderRows, report: Callable[[str], None]) -> None:
        """Copy all images, and report each page of them. Raises `StoreError` if the target can't be used."""
        slots = asyncio.Semaphore(CONCURRENCY)

        async def move(name: str, sha256: str) -> None:
            async with slots:
                problem = await self._move(name, sha256)
            self.total += 1
            if problem is not None:
                self.wrong += 1
                if len(self.problems) < MAX_PROBLEMS:
                    self.problems.append(problem)

        for page in rows.image_pages():
            await _all_of([move(name, sha256) for name, sha256 in page])
            report(f"compared {self.total:,} images, of which {self.copied:,} were copied now")
        if self.wrong > len(self.problems):
            self.problems.append(f"{self.wrong - len(self.problems):,} more images are missing or changed")

    async def _move(self, name: str, sha256: str) -> str | None:
        """Copy an image; return what is wrong with it."""
        target = self._target
        if target is not None and _has(await _retried(lambda: target.get(name)), sha256):
            return None
        try:
            data = await asyncio.to_thread(self._read, name)
        except OSError as exc:
            return f"the image {name} can't be read from the data folder: {exc.strerror}"
        if not _has(data, sha256):
            return f"the image {name} in the data folder has other bytes than its row"
        if target is None:
            return None
        await _retried(lambda: target.put(name, data))
        if not _has(await _retried(lambda: target.get(name)), sha256):
            return f"the object {name} has other bytes than were written"
        self.copied += 1
        return None

    def _read(self, name: str) -> bytes:
        path = self._folder / name
        if path.parent != self._folder:
            raise StoreError(f"the image row of {name!r} names no file of the data folder")
        return path.read_bytes()


async def _all_of(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Await all; if one fails, cancel the others and raise its error."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _retried(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    for wait_s in RETRY_WAITS_S:
        try:
            return await ask()
        except ImageStoreUnavailable:
            await asyncio.sleep(wait_s)
    return await ask()


def _has(data: bytes | None, sha256: str) -> bool:
    return data is not None and hashlib.sha256(data).hexdigest() == sha256
