"""Statements about accounts and keys."""

from dataclasses import dataclass

from sqlalchemy import func, insert, select, update

from allaprima.store.database import Database
from allaprima.store.schema import accounts, keys


@dataclass(frozen=True, slots=True)
class Account:
    """Who pays."""

    id: str
    name: str
    created_at: float


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key, without the key."""

    id: str
    account_id: str
    name: str | None
    #: The 8 characters after `ap_`.
    prefix: str
    created_at: float
    #: None while the key is good.
    revoked_at: float | None


_KEY_COLUMNS = (keys.c.id, keys.c.account_id, keys.c.name, keys.c.prefix, keys.c.created_at, keys.c.revoked_at)


class Keys:
    """Accounts and keys in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def first_account(self) -> Account | None:
        """Return the oldest account, if there is one."""
        async with self._database.read() as connection:
            row = (await connection.execute(select(accounts).order_by(accounts.c.created_at).limit(1))).first()
        return Account(**row._mapping) if row else None  # noqa: SLF001 - SQLAlchemy's public name

    async def add_account(self, account: Account) -> None:
        """Store a new account."""
        async with self._database.write() as connection:
            await connection.execute(
                insert(accounts).values(id=account.id, name=account.name, created_at=account.created_at)
            )

    async def add(self, key: KeyRow, key_hash: str) -> bool:
        """Store a new key. Returns False, and stores nothing, when its prefix or hash is taken."""
        async with self._database.write() as connection:
            taken = select(keys.c.id).where((keys.c.prefix == key.prefix) | (keys.c.hash == key_hash))
            if (await connection.execute(taken)).first():
                return False
            await connection.execute(
                insert(keys).values(
                    id=key.id,
                    account_id=key.account_id,
                    name=key.name,
                    prefix=key.prefix,
                    hash=key_hash,
                    created_at=key.created_at,
                )
            )
        return True

    async def count(self) -> int:
        """Return how many keys there ever were."""
        async with self._database.read() as connection:
            return (await connection.execute(select(func.count()).select_from(keys))).scalar_one()

    async def all(self) -> list[KeyRow]:
        """Return every key, oldest first."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(*_KEY_COLUMNS).order_by(keys.c.created_at, keys.c.id))
            return [KeyRow(*row) for row in rows]

    async def find_good(self, key_hash: str) -> KeyRow | None:
        """Return the key with that hash unless it is unknown or revoked."""
        async with self._database.read() as connection:
            wanted = select(*_KEY_COLUMNS).where(keys.c.hash == key_hash, keys.c.revoked_at.is_(None))
            row = (await connection.execute(wanted)).first()
        return KeyRow(*row) if row else None

    async def revoke(self, prefix: str, now: float) -> bool:
        """Revoke the key with that prefix; True when it was good until now."""
        async with self._database.write() as connection:
            done = await connection.execute(
                update(keys).where(keys.c.prefix == prefix, keys.c.revoked_at.is_(None)).values(revoked_at=now)
            )
        return done.rowcount == 1
