"""`/`: the playground, a page over the API from files of our own, which may load nothing from anywhere else.

It holds nothing that a client of the API could not do with a key; the key is asked for on the page.
"""

from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from allaprima.api.deps import SettingsDep

FOLDER = Path(__file__).parent / "playground"

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(settings: SettingsDep) -> Response:
    """Return the page."""
    return FileResponse(FOLDER / "index.html", headers=guards(settings.public_url))


def guards(public_url: str | None) -> dict[str, str]:
    """Return the headers that keep the page to itself.

    public_url: where pictures' links lead, if they are not the page's own.
    """
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


class Assets(StaticFiles):
    """The page's scripts and styles; a browser asks each time whether it still has the newest."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with the headers that it needs; the page itself is at `/` alone."""
        if path.endswith(".html"):
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response
