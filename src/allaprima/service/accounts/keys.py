"""API keys: creates, authenticates, changes, rotates and revokes them.

A key is `ap_`, 30 random base62 characters and 6 characters of their CRC32, so that secret scanners can recognise keys
offline. The store has only the SHA-256 of a key; a slow hash is not necessary for 178 random bits.
"""

import hashlib
import secrets
import zlib
from typing import Any

from uuid_utils import uuid7

from allaprima.domain.accounts import Account, ApiKey, KeyRotation, KeySpec
from allaprima.domain.clock import Clock
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.errors import AccountNotFound, KeyNotFound, Unauthorized
from allaprima.store.accounts import AccountRepository
from allaprima.store.keys import KeyRepository

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_START = "ap_"
RANDOM_CHARACTERS = 30
CHECK_CHARACTERS = 6
#: Number of random characters that identify a key in lists and URLs.
PREFIX_CHARACTERS = 8
#: Name of the account that owns the first key.
FIRST_ACCOUNT = "default"


def make_key() -> str:
    """Return a new random key."""
    body = "".join(secrets.choice(BASE62) for _ in range(RANDOM_CHARACTERS))
    return f"{KEY_START}{body}{checksum(body)}"


def checksum(body: str) -> str:
    """Return the CRC32 of a key's random characters as 6 base62 digits, most significant first."""
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECK_CHARACTERS):
        number, digit = divmod(number, len(BASE62))
        digits = BASE62[digit] + digits
    return digits


def is_well_formed(key: str) -> bool:
    """Whether a text has the form and the checksum of a key."""
    body, check = key[len(KEY_START) : -CHECK_CHARACTERS], key[-CHECK_CHARACTERS:]
    if not key.startswith(KEY_START) or len(body) != RANDOM_CHARACTERS or not key.isascii():
        return False
    return secrets.compare_digest(check.encode(), checksum(body).encode())


def hash_key(key: str) -> str:
    """Return the hash under which a key is stored."""
    return hashlib.sha256(key.encode()).hexdigest()


def prefix_of(key: str) -> str:
    """Return the prefix of a key: its first random characters, which identify the key without revealing it."""
    return key[len(KEY_START) :][:PREFIX_CHARACTERS]


class ApiKeyService:
    """Creates, authenticates, changes and revokes keys."""

    def __init__(
        self, keys: KeyRepository, accounts: AccountRepository, clock: Clock, *, makes_first_account: bool = True
    ) -> None:
        """makes_first_account: whether the first account is created when it is needed and there is none."""
        self._keys = keys
        self._accounts = accounts
        self._clock = clock
        self._makes_first_account = makes_first_account

    async def create(
        self, spec: KeySpec, account_id: str | None = None, claim: IdempotencyClaim | None = None
    ) -> tuple[ApiKey, str | None]:
        """Create a key and return its record and the key.

        account_id: the owner; None: the first account, as `first_account` returns it. claim: a repeated claim returns
        the record of the existing key and None, since the key itself is not stored. Raises `IdempotencyMismatch`,
        `AccountNotFound`, or `KeyNotFound` if the key of a repeated claim was revoked.
        """
        account_id = account_id or (await self.first_account()).id
        while True:
            now, key = self._clock(), make_key()
            record = ApiKey(
                id=str(uuid7()),
                account_id=account_id,
                prefix=prefix_of(key),
                created_at=now,
                updated_at=now,
                **{name: getattr(spec, name) for name in KeySpec.__dataclass_fields__},
            )
            # None: the prefix is in use, so the loop tries another key.
            if (stored := await self._keys.add(record, hash_key(key), claim)) is not None:
                found, is_new = stored
                return found, key if is_new else None

    async def rotate(
        self, account_id: str, prefix: str, claim: IdempotencyClaim | None = None
    ) -> tuple[ApiKey, str | None]:
        """Replace a key. The record keeps its limits and its usage; the old key becomes invalid immediately.

        Returns the record and the new key as `create` does. Raises `KeyNotFound` or `IdempotencyMismatch`.
        """
        while True:
            key = make_key()
            rotation = KeyRotation(account_id, prefix, prefix_of(key), self._clock())
            if (stored := await self._keys.rotate(rotation, hash_key(key), claim)) is not None:
                found, is_new = stored
                return found, key if is_new else None

    async def first_account(self) -> Account:
        """Return the oldest account; create one if there is none. Raises `AccountNotFound` if none may be created."""
        if not self._makes_first_account and not await self._accounts.all():
            raise AccountNotFound("there is no account; create one with `allaprima accounts create NAME`")
        return await self._accounts.first(Account(str(uuid7()), FIRST_ACCOUNT, self._clock()))

    async def create_first(self) -> str | None:
        """Create and return a key of the first account if the store has no keys; else return None."""
        if await self._keys.count():
            return None
        _, key = await self.create(KeySpec(name="first"))
        return key

    async def all(self, account_id: str | None = None) -> list[ApiKey]:
        """Return all keys, including revoked ones, oldest first. account_id: only keys of this account."""
        return await self._keys.all(account_id)

    async def find(self, prefix: str, account_id: str | None = None) -> ApiKey:
        """Return a key by its prefix. Raises `KeyNotFound`, also for a revoked key and for that of another account."""
        return _found(await self._keys.find(prefix, account_id), prefix)

    async def find_any(self, prefix: str, account_id: str) -> ApiKey:
        """Return a key of an account by its prefix, even if it is revoked. Raises `KeyNotFound`."""
        found = next((key for key in await self.all(account_id) if key.prefix == prefix), None)
        if found is None:
            raise KeyNotFound
        return found

    async def change(self, account_id: str, prefix: str, **changes: Any) -> ApiKey:
        """Change settings of a key and return its new record. changes: fields of `KeySpec`. Raises `KeyNotFound`."""
        changed = await self._keys.change(account_id, prefix, changes, self._clock())
        return _found(changed, prefix)

    async def revoke(self, prefix: str, account_id: str | None = None) -> None:
        """Make a key invalid. Raises `KeyNotFound`, also for a revoked key."""
        if not await self._keys.revoke(prefix, self._clock(), account_id):
            raise KeyNotFound(f"there is no valid key with the prefix {prefix[:40]}")

    async def authenticate(self, key: str) -> ApiKey:
        """Return the record of a valid key. Raises `Unauthorized` for any other text."""
        found = await self._keys.find_valid(hash_key(key)) if is_well_formed(key) else None
        if found is None:
            raise Unauthorized
        return found


def _found(key: ApiKey | None, prefix: str) -> ApiKey:
    if key is None:
        raise KeyNotFound(f"there is no valid key with the prefix {prefix[:40]}")
    return key
