"""The parts of a move: the copy of the rows, the comparison, and the images."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import inspect, text

from allaprima.domain.clock import Clocks, SteadyClock
from allaprima.domain.jobs import StoredImage
from allaprima.domain.ports import ObjectStore
from allaprima.errors import ImageStoreUnavailable, StoreError
from allaprima.service.images import Links
from allaprima.store.data_folder import DATABASE_FILE, IMAGES_FOLDER
from allaprima.store.images import ImageRepository
from allaprima.store.move import images as moved_images
from allaprima.store.move.folder import FolderRows
from allaprima.store.move.images import ImageMover
from allaprima.store.move.target import compare, copy_rows, is_copied
from allaprima.store.objects.local import LocalObjectStore
from allaprima.store.postgres import PostgresDatabase, open_postgres
from allaprima.store.secret import open_secret
from allaprima.store.sqlite import migrate
from tests.clock import NOW, FakeClock
from tests.store.backends import run
from tests.store.old_folder import IMAGES, SECRET, write_old_folder
from tests.store.postgres_server import server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the newest schema."""
    folder = write_old_folder(tmp_path / "data")
    migrate(folder / DATABASE_FILE)
    return folder


@pytest.fixture
def rows(data: Path) -> Iterator[FolderRows]:
    opened = FolderRows(data / DATABASE_FILE)
    yield opened
    opened.close()


async def open_target() -> PostgresDatabase:
    return await open_postgres(server().create(f"move-{uuid4()}"))


async def copied(rows: FolderRows) -> PostgresDatabase:
    """Return a database with the rows of the folder."""
    database = await open_target()
    await database.write(lambda connection: copy_rows(connection, rows, SECRET, lambda _line: None))
    return database


class FlakyStore(LocalObjectStore):
    """A store that is away for the first requests, and counts the puts."""

    def __init__(self, folder: Path, failures: int) -> None:
        super().__init__(folder)
        self.failures = failures
        self.puts = 0

    async def put(self, name: str, data: bytes) -> None:
        """Put an object unless the store is away."""
        if self.failures:
            self.failures -= 1
            raise ImageStoreUnavailable
        self.puts += 1
        await super().put(name, data)


class ForgetfulStore(LocalObjectStore):
    """A store that keeps other bytes than it was given."""

    async def put(self, name: str, data: bytes) -> None:
        """Put an object without its last byte."""
        await super().put(name, data[:-1])


async def moved(data: Path, rows: FolderRows, target: ObjectStore) -> ImageMover:
    mover = ImageMover(data / IMAGES_FOLDER, target)
    await mover.run(rows, lambda _line: None)
    return mover


# Rows ----------------------------------------------------------------------------------------------------------------


async def test_link_that_was_signed_before_the_move_is_valid_after_it(rows: FolderRows, tmp_path: Path) -> None:
    name = next(iter(IMAGES))
    image_id, clock = name.partition(".")[0], SteadyClock(Clocks(FakeClock(), FakeClock(0.0)))
    database = await copied(rows)
    image = await ImageRepository(database, LocalObjectStore(tmp_path / "objects")).find(image_id, NOW)
    assert isinstance(image, StoredImage)
    _, _, token, file = Links(SECRET, clock).path(image).split("/")
    assert Links(await open_secret(database, tmp_path), clock).read(token, file) == image_id
    await database.close()


async def test_comparison_finds_changed_rows_sums_and_secret(rows: FolderRows) -> None:
    database = await copied(rows)
    assert all(one.is_equal for one in await database.read(lambda connection: compare(connection, rows, SECRET)))
    await run(database, "UPDATE ledger SET credits = credits + 1 WHERE id = 'entry-1'")
    await run(database, "DELETE FROM webhook_deliveries WHERE id = 'message-1'")
    await run(database, "UPDATE installation SET secret = '0'")
    checks = await database.read(lambda connection: compare(connection, rows, SECRET))
    assert {one.name for one in checks if not one.is_equal} == {
        "webhook_deliveries, rows",
        "webhook_deliveries, hash",
        "ledger, hash",
        "ledger, sum of credits",
        "signing secret, hash",
    }
    await database.close()


async def test_target_is_empty_before_the_copy_and_equal_after_it(rows: FolderRows) -> None:
    database = await open_target()
    assert not await database.read(lambda connection: is_copied(connection, rows, SECRET))
    await database.close()
    database = await copied(rows)
    assert await database.read(lambda connection: is_copied(connection, rows, SECRET))
    await database.close()


async def test_schema_has_no_sequences_that_a_copy_would_have_to_set() -> None:
    database = await open_target()
    assert await database.read(lambda connection: inspect(connection).get_sequence_names()) == []
    identities = text("SELECT count(*) FROM information_schema.columns WHERE is_identity = 'YES'")
    assert await database.read(lambda connection: connection.execute(identities).scalar_one()) == 0
    await database.close()


def test_stopped_copy_ends_with_an_error(rows: FolderRows) -> None:
    rows.stop()
    with pytest.raises(StoreError, match="interrupted"):
        next(rows.image_pages())


# Images --------------------------------------------------------------------------------------------------------------


async def test_object_with_other_bytes_is_replaced_and_equal_ones_are_not_written(
    data: Path, rows: FolderRows, tmp_path: Path
) -> None:
    target = FlakyStore(tmp_path / "target", failures=0)
    same, other, _ = IMAGES
    (tmp_path / "target" / same).write_bytes(IMAGES[same])
    (tmp_path / "target" / other).write_bytes(IMAGES[other][:-1] + b"?")
    mover = await moved(data, rows, target)
    assert (mover.total, mover.copied, target.puts, mover.problems) == (3, 2, 2, [])
    assert {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()} == IMAGES


async def test_image_in_the_bucket_alone_is_found_there(data: Path, rows: FolderRows, tmp_path: Path) -> None:
    """A server on SQLite may have kept its images in the same bucket."""
    target = LocalObjectStore(tmp_path / "target")
    for name, image in IMAGES.items():
        (data / IMAGES_FOLDER / name).unlink()
        await target.put(name, image)
    mover = await moved(data, rows, target)
    assert (mover.total, mover.copied, mover.problems) == (3, 0, [])


async def test_store_that_is_away_is_asked_again(
    data: Path, rows: FolderRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moved_images, "RETRY_WAITS_S", (0, 0, 0, 0, 0))
    mover = await moved(data, rows, FlakyStore(tmp_path / "target", failures=4))
    assert (mover.copied, mover.problems) == (3, [])
    with pytest.raises(ImageStoreUnavailable):
        await moved(data, rows, FlakyStore(tmp_path / "other", failures=100))


async def test_object_that_reads_back_otherwise_is_a_problem(data: Path, rows: FolderRows, tmp_path: Path) -> None:
    mover = await moved(data, rows, ForgetfulStore(tmp_path / "target"))
    assert sorted(mover.problems) == [f"the object {name} has other bytes than were written" for name in sorted(IMAGES)]
