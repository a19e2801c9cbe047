"""An open database, and an account with a key to hang jobs on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from allaprima.store.database import Database, open_database
from allaprima.store.keys import Account, KeyRow, Keys
from fakes import NOON


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def owner(database: Database) -> KeyRow:
    """A good key of an account."""
    keys = Keys(database)
    await keys.add_account(Account("account", "default", NOON))
    row = KeyRow("key", "account", "first", "abcd1234", NOON, None)
    assert await keys.add(row, "hash")
    return row
