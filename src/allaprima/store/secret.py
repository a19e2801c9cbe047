"""The data folder's secret, which signs links. The server creates it once, readable by its owner only."""

import os
import secrets
from pathlib import Path

from allaprima.errors import StoreError

SECRET_FILE = "secret"  # noqa: S105 - a file's name
SECRET_BYTES = 32


def read_secret(folder: Path) -> bytes:
    """Return the folder's secret, 32 bytes, created if missing. Raises `StoreError` for a file of another length."""
    path = folder / SECRET_FILE
    try:
        if not path.exists():
            _write_whole(path, secrets.token_bytes(SECRET_BYTES))
        secret = path.read_bytes()
    except OSError as exc:
        raise StoreError(f"{path} can't be used: {exc.strerror}") from exc
    if len(secret) != SECRET_BYTES:
        raise StoreError(
            f"{path} has {len(secret)} bytes, not {SECRET_BYTES}, so links signed with it could be forged; "
            "remove the file, and the server creates a new secret (existing links then become invalid)"
        )
    return secret


def _write_whole(path: Path, data: bytes) -> None:
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
