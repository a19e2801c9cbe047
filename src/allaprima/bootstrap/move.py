"""Settings to a data folder that is moved to PostgreSQL and a bucket."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from allaprima.domain.database_url import SETTING, place_of
from allaprima.domain.move import Moved
from allaprima.errors import SettingsError, StoreError
from allaprima.settings import Settings
from allaprima.store.data_folder import DATABASE_FILE, IMAGES_FOLDER, DataFolder
from allaprima.store.database import Database
from allaprima.store.move.folder import FolderRows
from allaprima.store.move.images import ImageMover
from allaprima.store.move.target import compare, copy_rows, is_copied
from allaprima.store.moved import mark_moved, require_not_moved
from allaprima.store.objects.open import open_objects
from allaprima.store.open import open_database
from allaprima.store.secret import find_secret
from allaprima.store.sqlite import upgrade


async def move_folder(settings: Settings, report: Callable[[str], None]) -> Moved:
    """Copy the data folder into the configured database and bucket, compare both, and mark the folder as moved.

    The images are copied first and the rows last, in one transaction, so that the target never has a row without its
    image, and a move that was interrupted may be repeated. The folder is changed by an upgrade of its schema, and by
    the mark at the end, which it gets only if nothing differs. report: prints a line of progress.

    Raises `SettingsError`, or `StoreError` when the folder is in use or was moved, or when the target can't be used or
    has other rows.
    """
    if settings.store.database_url is None:
        raise SettingsError(f"name the PostgreSQL database to move to, with --database-url or {SETTING}")
    folder = settings.store.data_dir
    with _locked(folder) as locked:
        database = await open_database(settings.store)
        try:
            await asyncio.to_thread(upgrade, locked.database)
            return await _move(settings, folder, database, report)
        finally:
            await database.close()


@contextmanager
def _locked(path: Path) -> Iterator[DataFolder]:
    require_not_moved(path)
    file = path / DATABASE_FILE
    if not file.is_file() or not file.stat().st_size:
        raise StoreError(f"there is no data to move: {file} is missing or empty; name the data folder with --data-dir")
    folder = DataFolder(path)
    try:
        yield folder
    finally:
        folder.unlock()


async def _move(settings: Settings, folder: Path, database: Database, report: Callable[[str], None]) -> Moved:
    secret = find_secret(folder)
    rows = FolderRows(folder / DATABASE_FILE)
    try:
        # Before the images, which take long.
        await database.read(lambda connection: is_copied(connection, rows, secret))
        bucket = None if settings.store.bucket is None else await open_objects(settings.store)
        images = ImageMover(folder / IMAGES_FOLDER, bucket)
        await images.run(rows, report)
        if images.problems:
            return Moved((), tuple(images.problems))
        await database.write(lambda connection: copy_rows(connection, rows, secret, report))
        for change, count in sorted(rows.changed.items()):
            report(f"changed {count:,} values that PostgreSQL can't store as they are: {change}")
        checks = tuple(await database.read(lambda connection: compare(connection, rows, secret)))
        different = [f"{one.name}: {one.folder} in the folder, {one.target} in the target" for one in checks]
        problems = tuple(text for text, one in zip(different, checks, strict=True) if not one.is_equal)
        if not problems:
            mark_moved(folder, place(settings))
        return Moved(checks, problems)
    finally:
        rows.stop()
        # A transaction that a thread still runs reads the rows.
        await database.close()
        rows.close()


def place(settings: Settings) -> str:
    """Return where the data is after the move, without a password."""
    url = "" if settings.store.database_url is None else settings.store.database_url.get_secret_value()
    return f"the PostgreSQL database {place_of(url)} with the images in {image_place(settings)}"


def image_place(settings: Settings) -> str:
    """Return where the images are after the move."""
    if settings.store.bucket is None:
        return f"the folder {(settings.store.data_dir / IMAGES_FOLDER).resolve()}"
    return f"the bucket {settings.store.bucket}"
