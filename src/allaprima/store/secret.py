"""The data folder's secret, which signs links. Made once, readable by the owner alone."""

import os
import secrets
from pathlib import Path

SECRET_FILE = "secret"  # noqa: S105 - a file's name
SECRET_BYTES = 32


def read_secret(folder: Path) -> bytes:
    """Return the folder's secret, making it if need be."""
    path = folder / SECRET_FILE
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
    return path.read_bytes()
