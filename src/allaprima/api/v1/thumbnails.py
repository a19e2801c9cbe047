"""`GET /thumbnails/...`: small copies of images by signed links, without a key, with entity tags."""

from typing import Any

from fastapi import APIRouter, Request, Response

from allaprima.api.deps import ServiceDep
from allaprima.api.dialects.aiml.responses import ErrorBody
from allaprima.api.http.conditional import has_current
from allaprima.service.thumbnails import CONTENT_TYPE

router = APIRouter(tags=["files"])

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The thumbnail.", "content": {CONTENT_TYPE: {}}},
    304: {"description": "The client already has the current thumbnail."},
    # 4XX instead of 404, because otherwise FastAPI would document a 422 that the server never sends.
    "4XX": {"model": ErrorBody, "description": "404: the link is invalid or has expired."},
}


@router.get(
    "/thumbnails/{token}/{name}", response_class=Response, responses=_RESPONSES, summary="Fetch a thumbnail by its link"
)
async def fetch(request: Request, token: str, name: str, service: ServiceDep) -> Response:
    """Return the thumbnail, a WebP file of at most 320 pixels a side, or 304 if the client already has it."""
    links = service.images.links
    image = await service.thumbnails.find(links.read_thumbnail(token, name))
    # Weak, because another version of the encoder may return other bytes for the same image.
    etag = f'W/"{image.sha256}"'
    headers = {
        "etag": etag,
        "cache-control": f"private, max-age={max(0, int(links.until(image) - service.clock()))}, immutable",
        "cross-origin-resource-policy": "cross-origin",
        "access-control-allow-origin": "*",
        "content-security-policy": "default-src 'none'; sandbox",
        "x-content-type-options": "nosniff",
    }
    if has_current(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(await service.thumbnails.read(image), 200, headers, CONTENT_TYPE)
