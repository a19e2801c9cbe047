"""Settings to the hints between the processes of a database."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from allaprima.domain.ports import Hints
from allaprima.settings import StoreSettings
from allaprima.store.memory_hints import MemoryHints

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_hints(settings: StoreSettings) -> AsyncIterator[Hints]:
    """Exchange hints with the other processes of the database until the context exits.

    On SQLite, and behind a pooler without a direct URL, no other process receives any.
    """
    url = settings.hints_url or (None if settings.pooled else settings.database_url)
    if settings.database_url is None or url is None:
        if settings.database_url is not None:
            logger.warning(
                "processes learn of each other's jobs by polling, since PgBouncer passes no notifications on; "
                "set ALLAPRIMA_STORE__HINTS_URL to the URL of PostgreSQL itself"
            )
        yield MemoryHints()
        return
    # Imported here because the driver is an extra.
    from allaprima.store import hints

    async with hints.open_hints(url.get_secret_value()) as opened:
        yield opened
