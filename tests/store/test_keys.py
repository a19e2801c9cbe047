"""AccountRepository and keys as rows: found by hash while good, unique, counted for ever."""

from dataclasses import replace
from pathlib import Path

import pytest

from allaprima.domain.accounts import Account, ApiKey, KeyRotation, LimitPeriod, SpendLimit
from allaprima.domain.billing import EntryType
from allaprima.errors import KeyNotFound
from allaprima.store.database import Database
from allaprima.store.keys import AccountRepository, KeyRepository
from fakes import NOON
from store.made import ask


@pytest.fixture
def keys(database: Database) -> KeyRepository:
    return KeyRepository(database)


async def test_an_empty_store_has_neither_accounts_nor_keys(keys: KeyRepository) -> None:
    assert await keys.all() == []
    assert await keys.count() == 0
    assert await keys.find_good("hash") is None


async def test_accounts_are_listed_oldest_first(database: Database) -> None:
    young, old = Account("b", "young", NOON + 1), Account("a", "old", NOON)
    accounts = AccountRepository(database)
    assert await accounts.all() == []
    await accounts.add(young)
    await accounts.add(old)
    assert await accounts.all() == [old, young]


async def test_what_is_paid_in_is_the_balance(database: Database, owner: ApiKey, tmp_path: Path) -> None:
    accounts = AccountRepository(database)
    await accounts.credit(owner.account_id, EntryType.PAYMENT, 100, "for March", NOON)
    assert (await accounts.credit(owner.account_id, EntryType.ADJUSTMENT, -30, None, NOON + 1)).balance == 70
    assert ask(tmp_path, "SELECT direction, type, credits, note FROM ledger ORDER BY created_at") == [
        ("TOPUP", "PAYMENT", 100, "for March"),
        ("CHARGE", "ADJUSTMENT", 30, None),
    ]


async def test_a_key_is_found_by_its_hash(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.find_good("hash") == owner
    for other in ("", "HASH", "has", "hash ", "%", "' OR 1=1 --"):
        assert await keys.find_good(other) is None


@pytest.mark.parametrize(("prefix", "key_hash"), [("abcd1234", "other"), ("other", "hash"), ("abcd1234", "hash")])
async def test_a_taken_prefix_or_hash_is_not_stored(
    keys: KeyRepository, owner: ApiKey, prefix: str, key_hash: str
) -> None:
    assert not await keys.add(ApiKey("twin", owner.account_id, None, prefix, NOON), key_hash)
    assert await keys.all() == [owner]


async def test_keys_are_listed_oldest_first(keys: KeyRepository, owner: ApiKey) -> None:
    for number, created_at in enumerate((NOON + 2, NOON + 1, NOON - 1)):
        row = ApiKey(f"k{number}", owner.account_id, None, f"p{number}", created_at)
        assert await keys.add(row, f"h{number}")
    assert [row.id for row in await keys.all()] == ["k2", "key", "k1", "k0"]


async def test_a_revoked_key_is_listed_and_counted_but_not_found(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.revoke(owner.prefix, NOON + 5)
    assert await keys.find_good("hash") is None
    assert await keys.all() == [replace(owner, revoked_at=NOON + 5)]
    assert await keys.count() == 1


async def test_a_key_is_revoked_once(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.revoke(owner.prefix, NOON + 5)
    assert not await keys.revoke(owner.prefix, NOON + 6)
    assert (await keys.all())[0].revoked_at == NOON + 5


async def test_an_unknown_prefix_revokes_nothing(keys: KeyRepository, owner: ApiKey) -> None:
    for prefix in ("", "abcd", "ABCD1234", "%", "hash"):
        assert not await keys.revoke(prefix, NOON)
    assert await keys.find_good("hash") == owner


async def test_a_disabled_key_is_not_found_until_it_is_enabled(keys: KeyRepository, owner: ApiKey) -> None:
    await keys.update(replace(owner, is_disabled=True))
    assert await keys.find_good("hash") is None
    assert (await keys.find(owner.prefix)).is_disabled
    await keys.update(owner)
    assert await keys.find_good("hash") == owner


async def test_whatever_may_change_of_a_key_is_kept(keys: KeyRepository, owner: ApiKey) -> None:
    changed = replace(
        owner,
        name="other",
        updated_at=NOON + 1,
        scopes=("model:image",),
        limit=SpendLimit(LimitPeriod.WEEK, 500),
        requests_per_minute=7,
        safety_threshold=0.25,
    )
    await keys.update(changed)
    assert await keys.all() == [changed]
    await keys.update(replace(owner, scopes=()))
    assert (await keys.all())[0].scopes == ()


async def test_a_rotated_key_keeps_its_row(keys: KeyRepository, owner: ApiKey) -> None:
    rotation = KeyRotation("1", owner.account_id, owner.prefix, "wxyz5678", NOON + 1)
    assert await keys.rotate(rotation, "other") == "1"
    assert await keys.find_good("hash") is None
    assert await keys.find_good("other") == replace(owner, prefix="wxyz5678", updated_at=NOON + 1)


async def test_a_key_is_not_rotated_to_what_is_taken(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.rotate(KeyRotation("1", owner.account_id, owner.prefix, owner.prefix, NOON), "other") is None
    assert await keys.rotate(KeyRotation("1", owner.account_id, owner.prefix, "wxyz5678", NOON), "hash") is None
    assert await keys.find_good("hash") == owner


async def test_a_strangers_key_can_not_be_rotated(keys: KeyRepository, owner: ApiKey) -> None:
    with pytest.raises(KeyNotFound, match=owner.prefix):
        await keys.rotate(KeyRotation("1", "stranger", owner.prefix, "wxyz5678", NOON), "other")
    assert await keys.find_good("hash") == owner


async def test_keys_are_an_accounts_own(database: Database, keys: KeyRepository, owner: ApiKey) -> None:
    await AccountRepository(database).add(Account("stranger", "stranger", NOON))
    assert await keys.all("stranger") == []
    assert await keys.find(owner.prefix, "stranger") is None
    assert not await keys.revoke(owner.prefix, NOON, "stranger")
    assert await keys.find_good("hash") == owner
