"""An open database of each backend, an object store of each kind, and an account with a key."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from allaprima.domain.accounts import Account, ApiKey
from allaprima.domain.bucket import parse_bucket
from allaprima.domain.ports import ObjectStore
from allaprima.store.accounts import AccountRepository
from allaprima.store.database import Database
from allaprima.store.keys import KeyRepository
from allaprima.store.objects.bucket import BucketObjectStore
from tests.clock import NOW
from tests.store.backends import BACKENDS, OBJECT_STORES
from tests.store.reaping import register


@pytest.fixture(params=BACKENDS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await BACKENDS[request.param](tmp_path / "data")
    yield opened
    await opened.close()


@pytest.fixture(params=[*OBJECT_STORES, "bucket"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "bucket":
        return BucketObjectStore(parse_bucket(request.getfixturevalue("bucket_url")))
    return OBJECT_STORES[request.param](tmp_path / "images")


@pytest.fixture
async def owner(database: Database) -> ApiKey:
    """A valid key of an account, and a registered worker, `WORKER`."""
    await register(database)
    await AccountRepository(database).add(Account("account", "default", NOW))
    key = ApiKey(id="key", account_id="account", name="first", prefix="abcd1234", created_at=NOW, updated_at=NOW)
    assert await KeyRepository(database).add(key, "hash")
    return key
