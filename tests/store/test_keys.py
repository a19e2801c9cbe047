"""Accounts and keys as rows: found by hash while good, unique, counted for ever."""

from dataclasses import replace

import pytest

from allaprima.store.database import Database
from allaprima.store.keys import Account, KeyRow, Keys
from fakes import NOON


@pytest.fixture
def keys(database: Database) -> Keys:
    return Keys(database)


async def test_an_empty_store_has_neither_accounts_nor_keys(keys: Keys) -> None:
    assert await keys.first_account() is None
    assert await keys.all() == []
    assert await keys.count() == 0
    assert await keys.find_good("hash") is None


async def test_the_first_account_is_the_oldest(keys: Keys) -> None:
    young, old = Account("b", "young", NOON + 1), Account("a", "old", NOON)
    await keys.add_account(young)
    await keys.add_account(old)
    assert await keys.first_account() == old


async def test_a_key_is_found_by_its_hash(keys: Keys, owner: KeyRow) -> None:
    assert await keys.find_good("hash") == owner
    for other in ("", "HASH", "has", "hash ", "%", "' OR 1=1 --"):
        assert await keys.find_good(other) is None


@pytest.mark.parametrize(("prefix", "key_hash"), [("abcd1234", "other"), ("other", "hash"), ("abcd1234", "hash")])
async def test_a_taken_prefix_or_hash_is_not_stored(keys: Keys, owner: KeyRow, prefix: str, key_hash: str) -> None:
    assert not await keys.add(KeyRow("twin", owner.account_id, None, prefix, NOON, None), key_hash)
    assert await keys.all() == [owner]


async def test_keys_are_listed_oldest_first(keys: Keys, owner: KeyRow) -> None:
    for number, created_at in enumerate((NOON + 2, NOON + 1, NOON - 1)):
        row = KeyRow(f"k{number}", owner.account_id, None, f"p{number}", created_at, None)
        assert await keys.add(row, f"h{number}")
    assert [row.id for row in await keys.all()] == ["k2", "key", "k1", "k0"]


async def test_a_revoked_key_is_listed_and_counted_but_not_found(keys: Keys, owner: KeyRow) -> None:
    assert await keys.revoke(owner.prefix, NOON + 5)
    assert await keys.find_good("hash") is None
    assert await keys.all() == [replace(owner, revoked_at=NOON + 5)]
    assert await keys.count() == 1


async def test_a_key_is_revoked_once(keys: Keys, owner: KeyRow) -> None:
    assert await keys.revoke(owner.prefix, NOON + 5)
    assert not await keys.revoke(owner.prefix, NOON + 6)
    assert (await keys.all())[0].revoked_at == NOON + 5


async def test_an_unknown_prefix_revokes_nothing(keys: Keys, owner: KeyRow) -> None:
    for prefix in ("", "abcd", "ABCD1234", "%", "hash"):
        assert not await keys.revoke(prefix, NOON)
    assert await keys.find_good("hash") == owner
