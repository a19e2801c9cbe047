"""Settings to an open database, the data folder's SQLite file or PostgreSQL, and to the hints of its processes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from allaprima.domain.database_url import SETTING
from allaprima.domain.ports import Hints
from allaprima.errors import SettingsError
from allaprima.store.database import Database
from allaprima.store.memory_hints import MemoryHints
from allaprima.store.sqlite import open_sqlite, upgrade_sqlite

if TYPE_CHECKING:
    from allaprima.settings import StoreSettings

logger = logging.getLogger(__name__)


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


@asynccontextmanager
async def open_hints(settings: "StoreSettings") -> AsyncIterator[Hints]:
    """Exchange hints with the other processes of the database until the context exits.

    On SQLite, and behind a pooler without a direct URL, no other process receives any.
    """
    url = settings.hints_url or (None if settings.pooled else settings.database_url)
    if settings.database_url is None or url is None:
        if settings.pooled:
            logger.warning(
                "processes learn of each other's jobs by polling, since PgBouncer passes no notifications on; "
                "set ALLAPRIMA_STORE__HINTS_URL to the URL of PostgreSQL itself"
            )
        yield MemoryHints()
        return
    from allaprima.store import hints

    async with hints.open_hints(url.get_secret_value()) as opened:
        yield opened


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
