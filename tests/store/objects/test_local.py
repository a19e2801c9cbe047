"""The local object store: errors of the file system, and pages of the listing."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from allaprima.errors import StoreError, StoreFull
from allaprima.store.objects.local import PAGE, LocalObjectStore
from tests.waiting import eventually


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def local(folder: Path) -> LocalObjectStore:
    return LocalObjectStore(folder)


def block(folder: Path) -> None:
    """Replace the empty folder by a file."""
    folder.rmdir()
    folder.write_bytes(b"in the way")


async def test_unwritable_file_raises_store_error(local: LocalObjectStore, folder: Path) -> None:
    block(folder)
    with pytest.raises(StoreError, match="could not be written"):
        await local.put("a.png", b"image")


async def test_image_waits_for_free_file_descriptor(local: LocalObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        writing = asyncio.create_task(local.put("a.png", b"image"))
        await eventually(lambda: "no file descriptor is free" in caplog.text)
        assert not writing.done()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await writing
    assert await local.get("a.png") == b"image"


async def test_full_disk_raises_store_full(local: LocalObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    # A disk of this size can't be mounted here; the error is the system's.
    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreFull):
        await local.put("a.png", b"image")


async def test_unreadable_file_raises_store_error(local: LocalObjectStore, folder: Path) -> None:
    (folder / "a.png").symlink_to(folder / "a.png")
    with pytest.raises(StoreError, match="could not be read"):
        await local.get("a.png")


async def test_undeletable_file_raises_store_error(local: LocalObjectStore, folder: Path) -> None:
    (folder / "a.png").mkdir()
    (folder / "a.png" / "in the way").touch()
    with pytest.raises(StoreError, match="could not be removed"):
        await local.delete("a.png")


def test_unusable_image_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=f"the image folder {tmp_path / 'file' / 'images'} can't be used"):
        LocalObjectStore(tmp_path / "file" / "images")


async def test_listing_pages_are_bounded(local: LocalObjectStore, folder: Path) -> None:
    names = {f"{number}.png" for number in range(2 * PAGE + 10)}
    for name in names:
        (folder / name).write_bytes(b"image")
    pages = [page async for page in pages_of(local)]
    assert {name for page in pages for name in page} == names
    assert [len(page) for page in pages] == [PAGE, PAGE, 10]


async def pages_of(local: LocalObjectStore) -> AsyncIterator[list[str]]:
    async for page in local.pages():
        yield [name for name, _ in page]
