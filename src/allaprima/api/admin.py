"""The operator's door: keys made and revoked beside a running server, over a socket in the data folder.

The socket is readable by its owner alone, which is the whole authentication. Only one process may write to the
database, so the command line asks here whenever a server holds the data folder.
"""

from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from allaprima.api.errors import add_error_handlers
from allaprima.api.tracing import TracingMiddleware
from allaprima.service.keys import KeyRing
from allaprima.store.keys import KeyRow

SOCKET_FILE = "admin.sock"


class NewKey(BaseModel):
    """What to call a key."""

    name: str | None = None


def show_key(row: KeyRow) -> dict[str, Any]:
    """Return a key's row as plain values."""
    return {"prefix": row.prefix, "name": row.name, "created_at": row.created_at, "revoked_at": row.revoked_at}


def create_admin_app(keys: KeyRing) -> FastAPI:
    """Return the application behind the socket."""
    router = APIRouter()

    @router.post("/keys")
    async def create(body: NewKey) -> dict[str, Any]:
        row, key = await keys.create(body.name)
        return show_key(row) | {"key": key}

    @router.get("/keys")
    async def list_all() -> list[dict[str, Any]]:
        return [show_key(row) for row in await keys.all()]

    @router.delete("/keys/{prefix}")
    async def revoke(prefix: str) -> dict[str, Any]:
        await keys.revoke(prefix)
        return {"prefix": prefix, "revoked": True}

    app = FastAPI(title="allaprima operator", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(TracingMiddleware)
    return app
