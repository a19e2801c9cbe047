"""The secret that signs links, created once: a file of the data folder, or a row of a database that servers share."""

import os
import secrets
from pathlib import Path

from sqlalchemy import Connection, select

from allaprima.errors import StoreError
from allaprima.store import dialect
from allaprima.store.database import Database
from allaprima.store.schema import installation

SECRET_FILE = "secret"  # noqa: S105 - a file's name
SECRET_BYTES = 32


INSERT_SECRET = dialect.upsert(installation, lambda insert: insert.on_conflict_do_nothing())


async def open_secret(database: Database, folder: Path) -> bytes:
    """Return the secret, 32 bytes, created if missing: that of a shared database, or else of the data folder.

    Raises `StoreError` if it can't be read, or has another length.
    """
    return await database.write(_shared_secret) if database.is_shared else read_secret(folder)


def _shared_secret(connection: Connection) -> bytes:
    """Return the database's secret. Of several processes at once, the first creates it, and all read it."""
    connection.execute(INSERT_SECRET(connection), {"id": 1, "secret": secrets.token_bytes(SECRET_BYTES)})
    secret: bytes = connection.execute(select(installation.c.secret)).scalar_one()
    if len(secret) != SECRET_BYTES:
        raise StoreError(
            f"the table {installation.name} has a secret of {len(secret)} bytes, not {SECRET_BYTES}, so links signed "
            "with it could be forged; remove its row, and the server creates a new one (existing links then become "
            "invalid)"
        )
    return secret


def read_secret(folder: Path) -> bytes:
    """Return the folder's secret, 32 bytes, created if missing. Raises `StoreError` for a file of another length."""
    path = folder / SECRET_FILE
    try:
        if not path.exists():
            write_whole(path, secrets.token_bytes(SECRET_BYTES))
        secret = path.read_bytes()
    except OSError as exc:
        raise StoreError(f"{path} can't be used: {exc.strerror}") from exc
    if len(secret) != SECRET_BYTES:
        raise StoreError(
            f"{path} has {len(secret)} bytes, not {SECRET_BYTES}, so links signed with it could be forged; "
            "remove the file, and the server creates a new secret (existing links then become invalid)"
        )
    return secret


def find_secret(folder: Path) -> bytes | None:
    """Return the folder's secret as `read_secret` does; None if no server has created it."""
    return read_secret(folder) if (folder / SECRET_FILE).exists() else None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically, readable by its owner only, and flush it to the disk."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
