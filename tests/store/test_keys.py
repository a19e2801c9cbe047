"""API key rows: lookup by hash, uniqueness, revocation, rotation and replayed requests."""

from dataclasses import replace

import pytest

from allaprima.domain.accounts import Account, ApiKey, KeyRotation, LimitPeriod, SpendLimit
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import IdempotencyMismatch, KeyNotFound
from allaprima.store.accounts import AccountRepository
from allaprima.store.database import Database
from allaprima.store.keys import KeyRepository
from tests.clock import NOW

CLAIM = IdempotencyClaim("once", "fingerprint")


@pytest.fixture
def keys(database: Database) -> KeyRepository:
    return KeyRepository(database)


async def test_empty_store_has_no_keys(keys: KeyRepository) -> None:
    assert await keys.all() == []
    assert await keys.count() == 0
    assert await keys.find_valid("hash") is None


async def test_key_is_found_by_its_hash(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.find_valid("hash") == owner
    for other in ("", "HASH", "has", "hash ", "%", "' OR 1=1 --"):
        assert await keys.find_valid(other) is None


@pytest.mark.parametrize(("prefix", "key_hash"), [("abcd1234", "other"), ("other", "hash"), ("abcd1234", "hash")])
async def test_duplicate_prefix_or_hash_is_refused(
    keys: KeyRepository, owner: ApiKey, prefix: str, key_hash: str
) -> None:
    assert not await keys.add(ApiKey(id="twin", account_id=owner.account_id, prefix=prefix, created_at=NOW), key_hash)
    assert await keys.all() == [owner]


async def test_keys_are_listed_oldest_first(keys: KeyRepository, owner: ApiKey) -> None:
    for number, created_at in enumerate((NOW + 2, NOW + 1, NOW - 1)):
        row = ApiKey(id=f"k{number}", account_id=owner.account_id, prefix=f"p{number}", created_at=created_at)
        assert await keys.add(row, f"h{number}")
    assert [row.id for row in await keys.all()] == ["k2", "key", "k1", "k0"]


async def test_revoked_key_is_listed_but_not_valid(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.revoke(owner.prefix, NOW + 5)
    assert await keys.find_valid("hash") is None
    assert await keys.all() == [replace(owner, revoked_at=NOW + 5)]
    assert await keys.count() == 1


async def test_key_is_revoked_once(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.revoke(owner.prefix, NOW + 5)
    assert not await keys.revoke(owner.prefix, NOW + 6)
    assert (await keys.all())[0].revoked_at == NOW + 5


async def test_unknown_prefix_revokes_nothing(keys: KeyRepository, owner: ApiKey) -> None:
    for prefix in ("", "abcd", "ABCD1234", "%", "hash"):
        assert not await keys.revoke(prefix, NOW)
    assert await keys.find_valid("hash") == owner


async def test_disabled_key_is_not_valid_until_enabled(keys: KeyRepository, owner: ApiKey) -> None:
    await keys.change(owner.account_id, owner.prefix, {"is_disabled": True}, NOW)
    assert await keys.find_valid("hash") is None
    found = await keys.find(owner.prefix)
    assert found is not None
    assert found.is_disabled
    await keys.change(owner.account_id, owner.prefix, {"is_disabled": False}, NOW)
    assert await keys.find_valid("hash") == owner


async def test_every_key_setting_is_stored(keys: KeyRepository, owner: ApiKey) -> None:
    changes = {
        "name": "other",
        "scopes": ("model:image",),
        "limit": SpendLimit(LimitPeriod.WEEK, 500),
        "requests_per_minute": 7,
        "safety_threshold": 0.25,
    }
    changed = await keys.change(owner.account_id, owner.prefix, changes, NOW + 1)
    assert changed == replace(owner, **changes, updated_at=NOW + 1)
    assert await keys.all() == [changed]
    await keys.change(owner.account_id, owner.prefix, {"scopes": ()}, NOW + 2)
    assert (await keys.all())[0].scopes == ()


async def test_rotated_key_keeps_its_row(keys: KeyRepository, owner: ApiKey) -> None:
    rotation = KeyRotation(owner.account_id, owner.prefix, "wxyz5678", NOW + 1)
    rotated = replace(owner, prefix="wxyz5678", updated_at=NOW + 1)
    assert await keys.rotate(rotation, "other") == (rotated, True)
    assert await keys.find_valid("hash") is None
    assert await keys.find_valid("other") == rotated


async def test_rotation_to_taken_prefix_or_hash_is_refused(keys: KeyRepository, owner: ApiKey) -> None:
    assert await keys.rotate(KeyRotation(owner.account_id, owner.prefix, owner.prefix, NOW), "other") is None
    assert await keys.rotate(KeyRotation(owner.account_id, owner.prefix, "wxyz5678", NOW), "hash") is None
    assert await keys.find_valid("hash") == owner


async def test_key_of_another_account_cannot_be_rotated(keys: KeyRepository, owner: ApiKey) -> None:
    with pytest.raises(KeyNotFound, match=owner.prefix):
        await keys.rotate(KeyRotation("stranger", owner.prefix, "wxyz5678", NOW), "other")
    assert await keys.find_valid("hash") == owner


async def test_account_sees_only_its_own_keys(database: Database, keys: KeyRepository, owner: ApiKey) -> None:
    await AccountRepository(database).add(Account("stranger", "stranger", NOW))
    assert await keys.all("stranger") == []
    assert await keys.find(owner.prefix, "stranger") is None
    assert not await keys.revoke(owner.prefix, NOW, "stranger")
    assert await keys.find_valid("hash") == owner


async def test_replayed_request_returns_first_created_key(keys: KeyRepository, owner: ApiKey) -> None:
    made = ApiKey(id="made", account_id=owner.account_id, prefix="p1", created_at=NOW, updated_at=NOW)
    assert await keys.add(made, "h1", CLAIM) == (made, True)
    assert await keys.add(replace(made, id="again", prefix="p2"), "h2", CLAIM) == (made, False)
    assert await keys.count() == 2
    with pytest.raises(IdempotencyMismatch):
        await keys.add(replace(made, id="again", prefix="p2"), "h2", replace(CLAIM, fingerprint="other"))
    assert await keys.revoke("p1", NOW)
    with pytest.raises(KeyNotFound, match="revoked"):
        await keys.add(replace(made, id="again", prefix="p2"), "h2", CLAIM)


async def test_replayed_request_rotates_key_once(keys: KeyRepository, owner: ApiKey) -> None:
    rotation = KeyRotation(owner.account_id, owner.prefix, "wxyz5678", NOW + 1)
    rotated = replace(owner, prefix="wxyz5678", updated_at=NOW + 1)
    assert await keys.rotate(rotation, "other", CLAIM) == (rotated, True)
    assert await keys.rotate(replace(rotation, new_prefix="third123"), "third", CLAIM) == (rotated, False)
    assert await keys.find_valid("other") == rotated
