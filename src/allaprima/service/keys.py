"""Keys: made, shown once, recognised by their hash, revoked.

A key is `ap_`, 30 random base62 characters and 6 that are the CRC32 of those, so that a scanner can tell a real key
from a look-alike offline. The 30 characters carry 178 bits; a fast hash is enough.
"""

import hashlib
import secrets
import zlib

from uuid_utils import uuid7

from allaprima.errors import KeyNotFound, Unauthorized
from allaprima.service.ports import Clock
from allaprima.store.keys import Account, KeyRow, Keys

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_START = "ap_"
RANDOM_CHARACTERS = 30
CHECK_CHARACTERS = 6
PREFIX_CHARACTERS = 8
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
    """Whether this could be a key of ours, by its shape and checksum alone."""
    body, check = key[len(KEY_START) : -CHECK_CHARACTERS], key[-CHECK_CHARACTERS:]
    if not key.startswith(KEY_START) or len(body) != RANDOM_CHARACTERS or not key.isascii():
        return False
    return secrets.compare_digest(check.encode(), checksum(body).encode())


def hash_key(key: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


class KeyRing:
    """Makes, recognises, lists and revokes keys."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    async def create(self, name: str | None = None) -> tuple[KeyRow, str]:
        """Make a key for the first account (made if need be); return its row and the key, which is shown only here."""
        account = await self._keys.first_account()
        if account is None:
            account = Account(str(uuid7()), FIRST_ACCOUNT, self._clock())
            await self._keys.add_account(account)
        while True:
            key = make_key()
            prefix = key[len(KEY_START) :][:PREFIX_CHARACTERS]
            row = KeyRow(str(uuid7()), account.id, name, prefix, self._clock(), None)
            if await self._keys.add(row, hash_key(key)):
                return row, key

    async def create_first(self) -> str | None:
        """On an empty store make a key and return it; else return None."""
        if await self._keys.count():
            return None
        _, key = await self.create("first")
        return key

    async def all(self) -> list[KeyRow]:
        """Return every key, oldest first."""
        return await self._keys.all()

    async def revoke(self, prefix: str) -> None:
        """Make a key useless from the next request on. Raises `KeyNotFound`."""
        if not await self._keys.revoke(prefix, self._clock()):
            raise KeyNotFound(f"there is no good key with the prefix {prefix}")

    async def authenticate(self, key: str) -> KeyRow:
        """Return the key's row. Raises `Unauthorized` for any other text."""
        row = await self._keys.find_good(hash_key(key)) if is_well_formed(key) else None
        if row is None:
            raise Unauthorized
        return row
