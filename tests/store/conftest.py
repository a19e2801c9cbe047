"""An open database, and an account with a key to hang jobs on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from allaprima.domain.accounts import Account, ApiKey
from allaprima.store.database import Database, open_database
from allaprima.store.keys import AccountRepository, KeyRepository
from fakes import NOON


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_database(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def owner(database: Database) -> ApiKey:
    """A good key of an account."""
    await AccountRepository(database).add(Account("account", "default", NOON))
    row = ApiKey("key", "account", "first", "abcd1234", NOON, updated_at=NOON)
    assert await KeyRepository(database).add(row, "hash")
    return row
