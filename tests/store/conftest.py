"""An open database, and an account with a key to hang jobs on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from allaprima.store.database import Database, open_database
from allaprima.store.keys import Account, Accounts, KeyRow, Keys
from fakes import NOON


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def owner(database: Database) -> KeyRow:
    """A good key of an account."""
    await Accounts(database).add(Account("account", "default", NOON))
    row = KeyRow("key", "account", "first", "abcd1234", NOON, updated_at=NOON)
    assert await Keys(database).add(row, "hash")
    return row
