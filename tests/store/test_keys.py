"""API keys as rows: found by hash while valid, unique, counted even when revoked."""

from dataclasses import replace

import pytest

from allaprima.domain.accounts import Account, ApiKey, KeyRotation, LimitPeriod, SpendLimit
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import IdempotencyMismatch, KeyNotFound
from allaprima.store.accounts import AccountRepository
from allaprima.store.database import Database
from allaprima.store.keys import KeyRepository
from tests.clock import NOON

CLAIM = IdempotencyClaim("once", "fingerprint")


@pytest.fixture
def keys(database: Database) -> KeyRepository:
    return KeyRepository(database)


async def test_an_empty_store_has_no_keys(keys: KeyRepository) -> None:
    assert await keys.all() == []
    assert await keys.count() == 0
    assert await keys.find_valid("hash") is None


async def test_a_key_is_found_by_its_hash(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.find_valid("hash") == owner
    for other in ("", "HASH", "has", "hash ", "%", "' OR 1=1 --"):
        assert await keys.find_valid(other) is None


@pytest.mark.parametrize(("prefix", "key_hash"), [("abcd1234", "other"), ("other", "hash"), ("abcd1234", "hash")])
async def test_a_taken_prefix_or_hash_is_not_stored(
    keys: KeyRepository, owner: ApiKey, prefix: str, key_hash: str
) -> None:
    assert not await keys.add(ApiKey(id="twin", account_id=owner.account_id, prefix=prefix, created_at=NOON), key_hash)
    assert await keys.all() == [owner]


async def test_keys_are_listed_oldest_first(keys: KeyRepository, owner: ApiKey) -> None:
    for number, created_at in enumerate((NOON + 2, NOON + 1, NOON - 1)):
        row = ApiKey(id=f"k{number}", account_id=owner.account_id, prefix=f"p{number}", created_at=created_at)
        assert await keys.add(row, f"h{number}")
    assert [row.id for row in await keys.all()] == ["k2", "key", "k1", "k0"]


async def test_a_revoked_key_is_listed_and_counted_but_not_found(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.revoke(owner.prefix, NOON + 5)
    assert await keys.find_valid("hash") is None
    assert await keys.all() == [replace(owner, revoked_at=NOON + 5)]
    assert await keys.count() == 1


async def test_a_key_is_revoked_once(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.revoke(owner.prefix, NOON + 5)
    assert not await keys.revoke(owner.prefix, NOON + 6)
    assert (await keys.all())[0].revoked_at == NOON + 5


async def test_an_unknown_prefix_revokes_nothing(keys: KeyRepository, owner: ApiKey) -> None:
    for prefix in ("", "abcd", "ABCD1234", "%", "hash"):
        assert not await keys.revoke(prefix, NOON)
    assert await keys.find_valid("hash") == owner


async def test_a_disabled_key_is_not_found_until_it_is_enabled(keys: KeyRepository, owner: ApiKey) -> None:
    await keys.change(owner.account_id, owner.prefix, {"is_disabled": True}, NOON)
    assert await keys.find_valid("hash") is None
    found = await keys.find(owner.prefix)
    assert found is not None
    assert found.is_disabled
    await keys.change(owner.account_id, owner.prefix, {"is_disabled": False}, NOON)
    assert await keys.find_valid("hash") == owner


async def test_every_setting_of_a_key_is_stored(keys: KeyRepository, owner: ApiKey) -> None:
    changes = {
        "name": "other",
        "scopes": ("model:image",),
        "limit": SpendLimit(LimitPeriod.WEEK, 500),
        "requests_per_minute": 7,
        "safety_threshold": 0.25,
    }
    changed = await keys.change(owner.account_id, owner.prefix, changes, NOON + 1)
    assert changed == replace(owner, **changes, updated_at=NOON + 1)
    assert await keys.all() == [changed]
    await keys.change(owner.account_id, owner.prefix, {"scopes": ()}, NOON + 2)
    assert (await keys.all())[0].scopes == ()


async def test_a_rotated_key_keeps_its_row(keys: KeyRepository, owner: ApiKey) -> None:
    rotation = KeyRotation(owner.account_id, owner.prefix, "wxyz5678", NOON + 1)
    rotated = replace(owner, prefix="wxyz5678", updated_at=NOON + 1)
    assert await keys.rotate(rotation, "other") == (rotated, True)
    assert await keys.find_valid("hash") is None
    assert await keys.find_valid("other") == rotated


async def test_a_key_is_not_rotated_to_a_taken_prefix_or_hash(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.rotate(KeyRotation(owner.account_id, owner.prefix, owner.prefix, NOON), "other") is None
    assert await keys.rotate(KeyRotation(owner.account_id, owner.prefix, "wxyz5678", NOON), "hash") is None
    assert await keys.find_valid("hash") == owner


async def test_a_key_of_another_account_can_not_be_rotated(keys: KeyRepository, owner: ApiKey) -> None:
    with pytest.raises(KeyNotFound, match=owner.prefix):
        await keys.rotate(KeyRotation("stranger", owner.prefix, "wxyz5678", NOON), "other")
    assert await keys.find_valid("hash") == owner


async def test_an_account_reaches_its_own_keys_alone(database: Database, keys: KeyRepository, owner: ApiKey) -> None:
    await AccountRepository(database).add(Account("stranger", "stranger", NOON))
    assert await keys.all("stranger") == []
    assert await keys.find(owner.prefix, "stranger") is None
    assert not await keys.revoke(owner.prefix, NOON, "stranger")
    assert await keys.find_valid("hash") == owner


async def test_an_equal_request_returns_the_key_that_was_created_before(keys: KeyRepository, owner: ApiKey) -> None:
    made = ApiKey(id="made", account_id=owner.account_id, prefix="p1", created_at=NOON, updated_at=NOON)
    assert await keys.add(made, "h1", CLAIM) == (made, True)
    assert await keys.add(replace(made, id="again", prefix="p2"), "h2", CLAIM) == (made, False)
    assert await keys.count() == 2
    with pytest.raises(IdempotencyMismatch):
        await keys.add(replace(made, id="again", prefix="p2"), "h2", replace(CLAIM, fingerprint="other"))
    assert await keys.revoke("p1", NOON)
    with pytest.raises(KeyNotFound, match="revoked"):
        await keys.add(replace(made, id="again", prefix="p2"), "h2", CLAIM)


async def test_an_equal_request_rotates_a_key_once(keys: KeyRepository, owner: ApiKey) -> None:
    rotation = KeyRotation(owner.account_id, owner.prefix, "wxyz5678", NOON + 1)
    rotated = replace(owner, prefix="wxyz5678", updated_at=NOON + 1)
    assert await keys.rotate(rotation, "other", CLAIM) == (rotated, True)
    assert await keys.rotate(replace(rotation, new_prefix="third123"), "third", CLAIM) == (rotated, False)
    assert await keys.find_valid("other") == rotated
