"""Settings to an open database: the data folder's SQLite file, or PostgreSQL."""

from typing import TYPE_CHECKING

from allaprima.store.database import Database
from allaprima.store.sqlite import open_sqlite

if TYPE_CHECKING:
    from allaprima.settings import StoreSettings


async def open_database(settings: "StoreSettings") -> Database:
    """Open the configured database: PostgreSQL if it has a URL, otherwise the data folder's.

    Raises `StoreError` when it can't be used, and `StoreLocked` when another process has locked the data folder.
    """
    if settings.database_url is None:
        return await open_sqlite(settings.data_dir)
    # Imported here because the driver is an extra.
    from allaprima.store.postgres import open_postgres

    return await open_postgres(settings.database_url.get_secret_value())
