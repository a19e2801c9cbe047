"""KeyRepository: made, shown once, recognised by their hash, limited, disabled, rotated, revoked.

A key is `ap_`, 30 random base62 characters and 6 that are the CRC32 of those, so that a scanner can tell a real key
from a look-alike offline. The 30 characters carry 178 bits; a fast hash is enough.
"""

import asyncio
import hashlib
import hmac
import secrets
import zlib
from dataclasses import dataclass, replace
from typing import Any

from uuid_utils import uuid7

from allaprima.domain.accounts import Account, ApiKey, KeyRotation, SpendLimit
from allaprima.domain.idempotency import IdempotencyClaim
from allaprima.domain.ports import Clock
from allaprima.errors import KeyNotFound, Unauthorized
from allaprima.store.keys import AccountRepository, KeyRepository

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_START = "ap_"
RANDOM_CHARACTERS = 30
CHECK_CHARACTERS = 6
PREFIX_CHARACTERS = 8
FIRST_ACCOUNT = "default"


@dataclass(frozen=True, slots=True)
class KeySpec:
    """What a key is to be."""

    name: str | None = None
    is_management: bool = False
    is_disabled: bool = False
    #: None: all of them.
    scopes: tuple[str, ...] | None = None
    limit: SpendLimit | None = None
    #: None: the server's.
    requests_per_minute: int | None = None
    #: None: the server's.
    safety_threshold: float | None = None


def make_key(draw: Any = None) -> str:
    """Return a new random key. draw: gives the next character's number below 62; else the system's randomness."""
    draw = draw or (lambda: secrets.randbelow(len(BASE62)))
    body = "".join(BASE62[draw()] for _ in range(RANDOM_CHARACTERS))
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
    """Whether this could be a key of ours, by its shape and checksum alone."""
    body, check = key[len(KEY_START) : -CHECK_CHARACTERS], key[-CHECK_CHARACTERS:]
    if not key.startswith(KEY_START) or len(body) != RANDOM_CHARACTERS or not key.isascii():
        return False
    return secrets.compare_digest(check.encode(), checksum(body).encode())


def hash_key(key: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def prefix_of(key: str) -> str:
    """Return the characters that name a key without giving it away."""
    return key[len(KEY_START) :][:PREFIX_CHARACTERS]


class KeyRing:
    """Makes, recognises, changes and revokes keys."""

    def __init__(self, keys: KeyRepository, accounts: AccountRepository, clock: Clock, secret: bytes) -> None:
        """secret: of the data folder; keys that may have to be shown again are derived from it."""
        self._keys = keys
        self._accounts = accounts
        self._clock = clock
        self._secret = secret
        self._changing = asyncio.Lock()

    async def create(
        self, spec: KeySpec, account_id: str | None = None, claim: IdempotencyClaim | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key, of the first account (made if need be) unless one is named; return its row and the key.

        The key is shown only here, or again to an equal request with the same claim while it is good. Raises
        `IdempotencyMismatch`, or `KeyNotFound` where what an equal request made is not good any more.
        """
        account_id = account_id or (await self.first_account()).id
        while True:
            now = self._clock()
            row_id = str(uuid7())
            key = self._derive(row_id) if claim else make_key()
            row = ApiKey(row_id, account_id, spec.name, prefix_of(key), now, updated_at=now)
            row = replace(row, **{name: getattr(spec, name) for name in _SPEC_NAMES})
            stored = await self._keys.add(row, hash_key(key), claim)
            if stored == row_id:
                return row, key
            if stored is not None:
                return await self._made_before(stored)

    async def _made_before(self, made_id: str) -> tuple[ApiKey, str]:
        """Return what an equal request made. Raises `KeyNotFound` when it was replaced or revoked since."""
        key = self._derive(made_id)
        row = await self._keys.find(prefix_of(key))
        if row is None:
            raise KeyNotFound("the key that an equal request made was replaced or revoked since")
        return row, key

    def _derive(self, made_id: str) -> str:
        """Return the key that belongs to an id for good: what is stored nowhere can still be shown again."""
        stream = int.from_bytes(hmac.new(self._secret, f"key/{made_id}".encode(), hashlib.sha256).digest())

        def draw() -> int:
            nonlocal stream
            stream, digit = divmod(stream, len(BASE62))
            return digit

        return make_key(draw)

    async def first_account(self) -> Account:
        """Return the oldest account, made if there is none."""
        if found := await self._accounts.all():
            return found[0]
        account = Account(str(uuid7()), FIRST_ACCOUNT, self._clock())
        await self._accounts.add(account)
        return account

    async def create_first(self) -> str | None:
        """On an empty store make a key and return it; else return None."""
        if await self._keys.count():
            return None
        _, key = await self.create(KeySpec(name="first"))
        return key

    async def all(self, account_id: str | None = None) -> list[ApiKey]:
        """Return every key, or every one of an account, oldest first; revoked ones too."""
        return await self._keys.all(account_id)

    async def find(self, prefix: str, account_id: str | None = None) -> ApiKey:
        """Return a key that is not revoked. Raises `KeyNotFound`, also for another account's."""
        row = await self._keys.find(prefix, account_id)
        if row is None:
            raise KeyNotFound(f"there is no good key with the prefix {prefix[:40]}")
        return row

    async def change(self, account_id: str, prefix: str, **changes: Any) -> ApiKey:
        """Change what a `KeySpec` says of a key; return it as it is then. Raises `KeyNotFound`."""
        # One at a time: each writes the whole row.
        async with self._changing:
            row = await self.find(prefix, account_id)
            changed = replace(row, **changes, updated_at=self._clock())
            await self._keys.update(changed)
        return changed

    async def rotate(self, account_id: str, prefix: str, claim: IdempotencyClaim | None = None) -> tuple[ApiKey, str]:
        """Let a new key take a key's place, limits, usage and all; the old one is useless at once.

        Shown again as `create` does. Raises `KeyNotFound` or `IdempotencyMismatch`.
        """
        while True:
            rotation_id = str(uuid7())
            key = self._derive(rotation_id) if claim else make_key()
            rotation = KeyRotation(rotation_id, account_id, prefix, prefix_of(key), self._clock())
            stored = await self._keys.rotate(rotation, hash_key(key), claim)
            if stored == rotation_id:
                return await self.find(rotation.new_prefix), key
            if stored is not None:
                return await self._made_before(stored)

    async def revoke(self, prefix: str, account_id: str | None = None) -> None:
        """Make a key useless from the next request on. Raises `KeyNotFound`."""
        if not await self._keys.revoke(prefix, self._clock(), account_id):
            raise KeyNotFound(f"there is no good key with the prefix {prefix[:40]}")

    async def authenticate(self, key: str) -> ApiKey:
        """Return the key's row. Raises `Unauthorized` for any other text."""
        row = await self._keys.find_good(hash_key(key)) if is_well_formed(key) else None
        if row is None:
            raise Unauthorized
        return row


_SPEC_NAMES = tuple(name for name in KeySpec.__dataclass_fields__ if name != "name")
