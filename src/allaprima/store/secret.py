"""The data folder's secret, which signs links. Made once, readable by the owner alone."""

import os
import secrets
from pathlib import Path

from allaprima.errors import StoreError

SECRET_FILE = "secret"  # noqa: S105 - a file's name
SECRET_BYTES = 32


def read_secret(folder: Path) -> bytes:
    """Return the folder's secret, making it if need be. Raises `StoreError` for a file that can't be one."""
    path = folder / SECRET_FILE
    try:
        if not path.exists():
            _write_whole(path, secrets.token_bytes(SECRET_BYTES))
        secret = path.read_bytes()
    except OSError as exc:
        raise StoreError(f"{path} can't be used: {exc.strerror}") from exc
    if len(secret) != SECRET_BYTES:
        raise StoreError(
            f"{path} holds {len(secret)} bytes, not {SECRET_BYTES}, so links signed with it could be forged; "
            "remove it, and a new one is made (links given out so far end then)"
        )
    return secret


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, on the disk whole or not there at all."""
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
