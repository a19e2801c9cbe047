"""Pictures on disk: kept while their rows live, gone when their time is over, and nothing left lying about."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from allaprima.domain.accounts import ApiKey
from allaprima.domain.jobs import StoredImage
from allaprima.errors import StoreError
from allaprima.store.database import Database
from allaprima.store.images import PAGE, ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.schema import images
from fakes import NOON
from store.made import new_job, outcome

Keep = Callable[..., Awaitable[StoredImage]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def pictures(database: Database, folder: Path) -> ImageRepository:
    return ImageRepository(database, folder)


@pytest.fixture
async def keep(database: Database, pictures: ImageRepository, owner: ApiKey) -> Keep:
    """Store a picture of a finished job, file and row."""

    async def keep(name: str, data: bytes = b"picture", expires_at: float = NOON + 60) -> StoredImage:
        moves = JobTransitions(database)
        await moves.admit(new_job(owner), queue_size=100)
        job = await moves.lease(NOON, NOON + 60)
        assert job is not None
        row = StoredImage(
            id=name,
            job_id=job.id,
            place=0,
            object_name=f"{name}.png",
            content_type="image/png",
            size_bytes=len(data),
            sha256="0" * 64,
            seed=1,
            nsfw_score=None,
            is_flagged=False,
            created_at=NOON,
            expires_at=expires_at,
        )
        await pictures.put(row.object_name, data)
        assert await moves.succeed(job, NOON, outcome(row))
        return row

    return keep


def age(path: Path, seconds: float) -> None:
    """Let a file look as if it was written that long before noon."""
    os.utime(path, (NOON - seconds, NOON - seconds))


def block(folder: Path) -> None:
    """Put a file where the empty folder is."""
    folder.rmdir()
    folder.write_bytes(b"in the way")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def rows(database: Database) -> list[str]:
    wanted = select(images.c.id).order_by(images.c.id)
    return await database.read(lambda connection: list(connection.execute(wanted).scalars()))


async def test_a_picture_comes_back_as_it_went(pictures: ImageRepository, keep: Keep) -> None:
    data = bytes(range(256)) * 1000
    row = await keep("a", data)
    assert await pictures.get("a", NOON) == (row, data)


async def test_a_picture_outlives_the_server(database: Database, folder: Path, keep: Keep) -> None:
    row = await keep("a")
    assert await ImageRepository(database, folder).get("a", NOON) == (row, b"picture")


async def test_an_unknown_picture_is_none(pictures: ImageRepository, keep: Keep) -> None:
    await keep("a")
    for name in ("b", "a.png", "", "../allaprima.db", "%"):
        assert await pictures.get(name, NOON) is None


async def test_a_picture_ends_when_its_time_is_over(pictures: ImageRepository, keep: Keep) -> None:
    await keep("a", expires_at=NOON + 60)
    assert await pictures.get("a", NOON + 59.9) is not None
    assert await pictures.get("a", NOON + 60) is None


async def test_a_row_without_its_file_is_none(pictures: ImageRepository, folder: Path, keep: Keep) -> None:
    await keep("a")
    (folder / "a.png").unlink()
    assert await pictures.get("a", NOON) is None


async def test_a_file_that_can_not_be_written_is_an_error_of_the_store(pictures: ImageRepository, folder: Path) -> None:
    block(folder)
    with pytest.raises(StoreError, match="could not be written"):
        await pictures.put("a.png", b"picture")


async def test_a_file_that_can_not_be_read_is_an_error_of_the_store(
    pictures: ImageRepository, folder: Path, keep: Keep
) -> None:
    await keep("a")
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(folder / "a.png")
    with pytest.raises(StoreError, match="could not be read"):
        await pictures.get("a", NOON)


def test_a_folder_that_can_not_be_made_is_named(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=f"the image folder {tmp_path / 'file' / 'images'} can't be used"):
        ImageRepository(database, tmp_path / "file" / "images")


# Sweeping -----------------------------------------------------------------------------------------------------------


async def test_a_sweep_removes_what_is_over_row_and_file(
    pictures: ImageRepository, folder: Path, database: Database, keep: Keep
) -> None:
    await keep("old", expires_at=NOON + 60)
    await keep("new", expires_at=NOON + 61)
    assert await pictures.sweep(NOON + 60) == 1
    assert files(folder) == {"new.png"}
    assert await rows(database) == ["new"]
    assert await pictures.get("new", NOON + 60) is not None


async def test_a_sweep_of_nothing_removes_nothing(pictures: ImageRepository, folder: Path, keep: Keep) -> None:
    assert await pictures.sweep(NOON) == 0
    await keep("a")
    assert await pictures.sweep(NOON) == 0
    assert files(folder) == {"a.png"}


async def test_a_sweep_twice_is_a_sweep_once(pictures: ImageRepository, keep: Keep) -> None:
    await keep("a")
    assert await pictures.sweep(NOON + 60) == 1
    assert await pictures.sweep(NOON + 60) == 0


async def test_only_orphans_older_than_an_hour_are_removed(pictures: ImageRepository, folder: Path, keep: Keep) -> None:
    await keep("kept")
    for name, seconds in (("old", 3601), ("edge", 3600), ("young", 3599), ("future", -60)):
        await pictures.put(f"{name}.png", b"orphan")
        age(folder / f"{name}.png", seconds)
    age(folder / "kept.png", 1_000_000)
    assert await pictures.sweep(NOON) == 1
    assert files(folder) == {"kept.png", "edge.png", "young.png", "future.png"}


async def test_a_sweep_looks_at_every_page_of_what_is_listed(
    pictures: ImageRepository, folder: Path, keep: Keep
) -> None:
    await keep("kept")
    for number in range(2 * PAGE + 10):
        file = folder / f"orphan-{number}.png"
        file.write_bytes(b"orphan")
        age(file, 3601)
    assert await pictures.sweep(NOON) == 2 * PAGE + 10
    assert files(folder) == {"kept.png"}


async def test_a_sweep_goes_on_where_a_file_is_gone_already(
    pictures: ImageRepository, folder: Path, keep: Keep
) -> None:
    await keep("a")
    await keep("b")
    (folder / "a.png").unlink()
    await pictures.sweep(NOON + 60)
    assert files(folder) == set()


async def test_what_the_sweep_could_not_remove_is_an_orphan_for_the_next(
    pictures: ImageRepository, folder: Path, database: Database, keep: Keep
) -> None:
    """Rows go first: a server that dies between leaves a file without a row, never a row without a file."""
    await keep("a", expires_at=NOON)
    await database.write(lambda connection: connection.execute(images.delete()).rowcount)
    age(folder / "a.png", 3601)
    assert await pictures.sweep(NOON) == 1
    assert files(folder) == set()
