"""Settings to an open database: the data folder's SQLite file, or PostgreSQL."""

import asyncio
from typing import TYPE_CHECKING

from allaprima.domain.database_url import SETTING
from allaprima.errors import SettingsError
from allaprima.store.database import Database
from allaprima.store.sqlite import open_sqlite, upgrade_sqlite

if TYPE_CHECKING:
    from allaprima.settings import StoreSettings


async def open_database(settings: "StoreSettings") -> Database:
    """Open the configured database: PostgreSQL if it has a URL, otherwise the data folder's.

    Raises `StoreError` when it can't be used, `StoreLocked` when another process has locked the data folder, and
    `SettingsError` when the driver of PostgreSQL is not installed.
    """
    if settings.database_url is None:
        return await open_sqlite(settings.data_dir)
    require_driver()
    from allaprima.store.postgres import open_postgres

    return await open_postgres(settings.database_url.get_secret_value(), is_pooled=settings.pooled)


async def upgrade_database(settings: "StoreSettings") -> str | None:
    """Upgrade the schema of the configured database; return the revision that it had, None if it was empty.

    Raises as `open_database` does, and for a database of another program or of a newer version.
    """
    if settings.database_url is None:
        return await upgrade_sqlite(settings.data_dir)
    require_driver()
    from allaprima.store.postgres import migrate

    return await asyncio.to_thread(migrate, settings.database_url.get_secret_value(), is_pooled=settings.pooled)


def require_driver() -> None:
    """Raise `SettingsError` if the driver of PostgreSQL, an extra, is not installed."""
    try:
        import psycopg  # noqa: F401 - only whether it can be imported
    except ImportError as exc:
        raise SettingsError(
            f"{SETTING} requires the extra `postgres`; install it with `pip install 'allaprima[postgres]'`"
        ) from exc
