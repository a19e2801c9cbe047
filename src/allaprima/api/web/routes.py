"""Serves the web pages from files of the package: the playground at `/` and the API reference at `/docs`.

The pages load nothing from other hosts, and all their links are relative, so that they work behind TLS and below a path
without configuration. The playground uses the public API with a key, like any other client.
"""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PLAYGROUND_FOLDER = Path(__file__).parent / "playground"
SWAGGER_FOLDER = Path(__file__).parent / "swagger"

router = APIRouter(include_in_schema=False)


def mount(app: FastAPI) -> None:
    """Add the pages to an application."""
    app.mount("/docs/assets", PageFiles(SWAGGER_FOLDER), name="docs-assets")
    app.router.routes.extend(router.routes)
    app.mount("/playground", PageFiles(PLAYGROUND_FOLDER), name="playground")


@router.get("/")
async def page() -> Response:
    """Return the playground's page."""
    return FileResponse(PLAYGROUND_FOLDER / "index.html", headers=guards())


@router.get("/docs")
async def reference() -> Response:
    """Return the page of the API reference."""
    return FileResponse(SWAGGER_FOLDER / "index.html", headers=guards())


def guards() -> dict[str, str]:
    """Return the security headers of a page, which loads only what its own server has."""
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-cache",
    }


class PageFiles(StaticFiles):
    """The scripts and styles of a page; a browser revalidates them each time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with its headers. The page itself has a route of its own."""
        if path.endswith(".html"):
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response
