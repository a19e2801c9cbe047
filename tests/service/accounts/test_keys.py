"""API keys: format, creation, authentication, changes, rotation and revocation."""

import asyncio
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allaprima.domain.accounts import ApiKey, KeySpec, LimitPeriod, SpendLimit
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import IdempotencyMismatch, KeyNotFound, Unauthorized
from allaprima.service.accounts.keys import BASE62, checksum, hash_key, is_well_formed, make_key
from allaprima.service.app import Service
from tests.databases import stored_bytes
from tests.fakes import FakeClock, FakeEngine, open_service

BODIES = st.text(BASE62, min_size=30, max_size=30)


def test_key_has_prefix_secret_and_checksum() -> None:
    key = make_key()
    assert re.fullmatch(r"ap_[0-9A-Za-z]{36}", key)
    assert is_well_formed(key)
    assert len({make_key() for _ in range(100)}) == 100


def test_checksum_is_crc32_in_base62() -> None:
    for _ in range(20):
        body, check = (key := make_key())[3:33], key[33:]
        number = 0
        for digit in check:
            number = number * 62 + BASE62.index(digit)
        assert number == zlib.crc32(body.encode())


def test_key_of_earlier_version_stays_well_formed() -> None:
    body = "0123456789ABCDEFGHIJabcdefghij"
    assert checksum(body) == "4Us3aw"
    assert is_well_formed(f"ap_{body}4Us3aw")


@given(body=BODIES, place=st.integers(0, 35), other=st.sampled_from(BASE62))
def test_key_with_one_wrong_character_is_not_well_formed(body: str, place: int, other: str) -> None:
    text = body + checksum(body)
    changed = text[:place] + other + text[place + 1 :]
    assert is_well_formed(f"ap_{changed}") == (changed == text)


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


@given(ANY_TEXT | ANY_TEXT.map("ap_{}".format) | BODIES.map("ap_{}".format) | BODIES.map("ap_{0}{0:.6}".format))
def test_other_text_is_not_well_formed(text: str) -> None:
    assert not is_well_formed(text)


@pytest.mark.parametrize("change", ["{}x", "x{}", " {}", "{} ", "{}\n", "AP_{0:.0}", "{0:.38}", "{0:.3}"])
def test_altered_key_is_not_well_formed(change: str) -> None:
    assert not is_well_formed(change.format(make_key()))


# The service --------------------------------------------------------------------------------------------------------


async def test_first_key_is_created_once(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        first = service.first_key
        assert first is not None
        assert is_well_formed(first)
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        assert service.first_key is None
        assert (await service.keys.authenticate(first)).name == "first"


async def test_first_key_is_not_created_again_after_revocation(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        assert service.first_key is not None
        await service.keys.revoke(service.first_key[3:11])
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        assert service.first_key is None


async def test_key_authenticates_as_its_record(service: Service, clock: FakeClock) -> None:
    clock.now += 7
    row, key = await service.keys.create(KeySpec("ci"))
    assert key is not None
    assert (row.name, row.prefix, row.created_at, row.revoked_at) == ("ci", key[3:11], clock.now, None)
    assert await service.keys.authenticate(key) == row


async def test_keys_belong_to_first_account_unless_one_is_named(service: Service, key: str) -> None:
    first = await service.keys.authenticate(key)
    row, _ = await service.keys.create(KeySpec())
    assert row.account_id == first.account_id
    assert row.id != first.id
    account = await service.operator.accounts.create("other")
    assert (await service.keys.create(KeySpec(), account.id))[0].account_id == account.id


async def test_unknown_key_is_refused(service: Service, key: str) -> None:
    row = await service.keys.authenticate(key)
    near = [key[:-1], key + "0", key.upper(), key[3:], key[:-6] + "\ud800" * 6, key[:-6] + "\u00fc" * 6]
    for other in (*near, "", "ap_", "\ud800", make_key(), hash_key(key), row.prefix, row.id):
        with pytest.raises(Unauthorized):
            await service.keys.authenticate(other)


async def test_revoked_key_is_refused_at_once(service: Service, key: str, clock: FakeClock) -> None:
    await service.keys.authenticate(key)
    clock.now += 7
    await service.keys.revoke(key[3:11])
    with pytest.raises(Unauthorized):
        await service.keys.authenticate(key)
    assert [row.revoked_at for row in await service.keys.all()] == [clock.now]


async def test_other_keys_are_valid_after_one_is_revoked(service: Service, key: str) -> None:
    _, other = await service.keys.create(KeySpec("other"))
    await service.keys.revoke(key[3:11])
    assert (await service.keys.authenticate(other or "")).name == "other"


async def test_revoked_key_stays_revoked_after_restart(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        key = service.first_key
        assert key is not None
        await service.keys.revoke(key[3:11])
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        with pytest.raises(Unauthorized):
            await service.keys.authenticate(key)


async def test_revoking_prefix_without_valid_key_is_refused(service: Service, key: str) -> None:
    await service.keys.revoke(key[3:11])
    for prefix in (key[3:11], "00000000", "", key):
        with pytest.raises(KeyNotFound, match="no valid key with the prefix"):
            await service.keys.revoke(prefix)


async def test_store_has_only_prefix_of_key(tmp_path: Path, clock: FakeClock) -> None:
    async with open_service(tmp_path, FakeEngine(), clock) as service:
        _, second = await service.keys.create(KeySpec("ci"))
        await service.keys.authenticate(second or "")
        created = [service.first_key, second]
        open_files = stored_bytes(tmp_path)
    for data in (open_files, stored_bytes(tmp_path)):
        for key in created:
            assert key is not None
            assert hash_key(key).encode() in data
            assert key[3:11].encode() in data
            for more_than_the_prefix in (key[3:19], key[11:19], key[11:]):
                assert more_than_the_prefix.encode() not in data


async def test_disabled_key_is_refused_until_it_is_enabled(service: Service, owner: ApiKey, key: str) -> None:
    await service.keys.change(owner.account_id, owner.prefix, is_disabled=True)
    with pytest.raises(Unauthorized):
        await service.keys.authenticate(key)
    await service.keys.change(owner.account_id, owner.prefix, is_disabled=False)
    assert await service.keys.authenticate(key)


async def test_change_keeps_other_members(service: Service, owner: ApiKey, key: str, clock: FakeClock) -> None:
    clock.now += 7
    limit = SpendLimit(LimitPeriod.DAY, 500)
    changed = await service.keys.change(owner.account_id, owner.prefix, limit=limit, safety_threshold=0.5)
    assert changed == replace(owner, limit=limit, safety_threshold=0.5, updated_at=clock.now)
    assert await service.keys.authenticate(key) == changed


async def test_concurrent_changes_of_key_are_all_stored(service: Service, owner: ApiKey) -> None:
    changes: list[dict[str, Any]] = [{"name": "ci"}, {"requests_per_minute": 5}, {"scopes": ("model:image",)}]
    await asyncio.gather(*(service.keys.change(owner.account_id, owner.prefix, **one) for one in changes))
    found = await service.keys.find(owner.prefix)
    assert (found.name, found.requests_per_minute, found.scopes) == ("ci", 5, ("model:image",))


async def test_key_of_other_account_is_not_found(service: Service, owner: ApiKey) -> None:
    for call in (
        service.keys.find(owner.prefix, "stranger"),
        service.keys.change("stranger", owner.prefix, name="x"),
        service.keys.rotate("stranger", owner.prefix),
        service.keys.revoke(owner.prefix, "stranger"),
    ):
        with pytest.raises(KeyNotFound):
            await call
    assert await service.keys.find(owner.prefix, owner.account_id) == owner
    assert await service.keys.all("stranger") == []


async def test_rotation_replaces_key_and_keeps_its_record(service: Service, owner: ApiKey, key: str) -> None:
    await service.keys.change(owner.account_id, owner.prefix, name="ci")
    record, new = await service.keys.rotate(owner.account_id, owner.prefix)
    assert new is not None
    assert (record.id, record.name, record.prefix) == (owner.id, "ci", new[3:11])
    assert await service.keys.authenticate(new) == record
    with pytest.raises(Unauthorized):
        await service.keys.authenticate(key)
    with pytest.raises(KeyNotFound):
        await service.keys.rotate(owner.account_id, owner.prefix)


# Idempotency --------------------------------------------------------------------------------------------------------

CLAIM = IdempotencyClaim("key", "fingerprint")


async def test_concurrent_equal_creations_create_one_key(service: Service, owner: ApiKey) -> None:
    made = await asyncio.gather(*(service.keys.create(KeySpec("ci"), owner.account_id, CLAIM) for _ in range(10)))
    assert len({record.id for record, _ in made}) == 1
    [shown] = [key for _, key in made if key is not None]
    assert await service.keys.authenticate(shown) == made[0][0]
    assert len(await service.keys.all()) == 2


async def test_concurrent_equal_rotations_rotate_key_once(service: Service, owner: ApiKey) -> None:
    made = await asyncio.gather(*(service.keys.rotate(owner.account_id, owner.prefix, CLAIM) for _ in range(10)))
    assert {record.id for record, _ in made} == {owner.id}
    [shown] = [key for _, key in made if key is not None]
    assert (await service.keys.authenticate(shown)).id == owner.id


async def test_replayed_creation_of_revoked_key_is_refused(service: Service, owner: ApiKey) -> None:
    record, _ = await service.keys.create(KeySpec("ci"), owner.account_id, CLAIM)
    await service.keys.revoke(record.prefix)
    with pytest.raises(KeyNotFound):
        await service.keys.create(KeySpec("ci"), owner.account_id, CLAIM)


async def test_idempotency_key_of_other_creation_is_refused(service: Service, owner: ApiKey) -> None:
    await service.keys.create(KeySpec("ci"), owner.account_id, CLAIM)
    with pytest.raises(IdempotencyMismatch):
        await service.keys.create(KeySpec("ci"), owner.account_id, IdempotencyClaim("key", "other"))
