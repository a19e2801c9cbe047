"""Serves the web pages from files of the package: the playground at `/` and the API reference at `/docs`.

The playground loads nothing from other hosts. It uses the public API with a key, like any other client.
"""

from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from allaprima.api.deps import SettingsDep

PLAYGROUND_FOLDER = Path(__file__).parent / "playground"
SWAGGER_FOLDER = Path(__file__).parent / "swagger"

router = APIRouter(include_in_schema=False)


def mount(app: FastAPI) -> None:
    """Add the pages to an application."""
    app.add_route("/docs", _reference, include_in_schema=False)
    app.mount("/docs/assets", StaticFiles(directory=SWAGGER_FOLDER), name="docs-assets")
    app.router.routes.extend(router.routes)
    app.mount("/playground", PlaygroundFiles(), name="playground")


async def _reference(_request: Request) -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="allaprima API",
        swagger_js_url="/docs/assets/swagger-ui-bundle.js",
        swagger_css_url="/docs/assets/swagger-ui.css",
        swagger_favicon_url="/docs/assets/favicon.svg",
    )


@router.get("/")
async def page(settings: SettingsDep) -> Response:
    """Return the playground's page."""
    return FileResponse(PLAYGROUND_FOLDER / "index.html", headers=guards(settings.public_url))


def guards(public_url: str | None) -> dict[str, str]:
    """Return the security headers of the page. public_url: the base URL of image links; None: the page's own host."""
    parts = urlsplit(public_url or "")
    own = f"'self' {parts.scheme}://{parts.netloc}" if public_url else "'self'"
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": f"{own} data:",
        "connect-src": own,
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-cache",
    }


class PlaygroundFiles(StaticFiles):
    """The page's scripts and styles; a browser revalidates them each time."""

    def __init__(self) -> None:
        super().__init__(directory=PLAYGROUND_FOLDER)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with its headers. The page itself is served at `/` only."""
        if path.endswith(".html"):
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response
