"""What an operator does to the keys: through the running server where there is one, else on the data folder itself."""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx2

from allaprima.api.admin import SOCKET_FILE, show_key
from allaprima.errors import KeyNotFound, StoreLocked, StoreUnreachable
from allaprima.settings import Settings
from allaprima.wiring import open_keys

#: Longest path that a Unix socket may have, with some room.
MAX_SOCKET_PATH = 100
#: How long a server that holds the folder may take to open its door.
PATIENCE_S = 10.0


def socket_path(data_dir: Path) -> Path:
    """Return where the door of a data folder is: in it, or, where the path is too long, among the temporary files."""
    path = (data_dir / SOCKET_FILE).resolve()
    if len(str(path)) <= MAX_SOCKET_PATH:
        return path
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"allaprima-{name}.sock"


class Operator(Protocol):
    """Makes, lists and revokes keys."""

    def create_key(self, name: str | None) -> dict[str, Any]:
        """Return the new key under `key`, with its prefix and name."""

    def list_keys(self) -> list[dict[str, Any]]:
        """Return all keys, oldest first, without the keys themselves."""

    def revoke_key(self, prefix: str) -> None:
        """Revoke a key. Raises `KeyNotFound`."""


@contextmanager
def open_operator(settings: Settings) -> Iterator[Operator]:
    """Reach the keys of the configured data folder.

    Raises `StoreUnreachable` when a server holds the folder and does not answer.
    """
    deadline = time.monotonic() + PATIENCE_S
    local = LocalOperator(settings)
    while True:
        try:
            local.list_keys()
        except StoreLocked as locked:
            door = socket_path(settings.store.data_dir)
            transport = httpx2.HTTPTransport(uds=str(door))
            with httpx2.Client(transport=transport, base_url="http://allaprima", timeout=30) as client:
                try:
                    client.get("/keys")
                except httpx2.TransportError as exc:
                    if time.monotonic() > deadline:
                        raise StoreUnreachable(f"{locked.message}, but does not answer at {door}") from exc
                    time.sleep(0.1)
                    continue
                yield RemoteOperator(client)
        else:
            yield local
        return


class LocalOperator:
    """Works on the data folder itself."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def create_key(self, name: str | None) -> dict[str, Any]:
        """See `Operator`."""

        async def create() -> dict[str, Any]:
            async with open_keys(self._settings) as keys:
                row, key = await keys.create(name)
                return show_key(row) | {"key": key}

        return asyncio.run(create())

    def list_keys(self) -> list[dict[str, Any]]:
        """See `Operator`."""

        async def list_all() -> list[dict[str, Any]]:
            async with open_keys(self._settings) as keys:
                return [show_key(row) for row in await keys.all()]

        return asyncio.run(list_all())

    def revoke_key(self, prefix: str) -> None:
        """See `Operator`."""

        async def revoke() -> None:
            async with open_keys(self._settings) as keys:
                await keys.revoke(prefix)

        asyncio.run(revoke())


class RemoteOperator:
    """Asks the running server."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def create_key(self, name: str | None) -> dict[str, Any]:
        """See `Operator`."""
        made: dict[str, Any] = self._client.post("/keys", json={"name": name}).raise_for_status().json()
        return made

    def list_keys(self) -> list[dict[str, Any]]:
        """See `Operator`."""
        rows: list[dict[str, Any]] = self._client.get("/keys").raise_for_status().json()
        return rows

    def revoke_key(self, prefix: str) -> None:
        """See `Operator`."""
        answer = self._client.delete(f"/keys/{prefix}")
        if answer.status_code == 404:
            raise KeyNotFound(answer.json()["message"])
        answer.raise_for_status()
