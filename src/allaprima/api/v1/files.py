"""`GET /files/...`: images by signed links, without a key, with byte ranges and entity tags."""

import re
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response

from allaprima.api.deps import ServiceDep
from allaprima.api.dialects.aiml.responses import ErrorBody
from allaprima.api.http.conditional import has_current
from allaprima.errors import ImageNotFound

router = APIRouter(tags=["files"])

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

_REDIRECT = {
    "cache-control": "no-store",
    "access-control-allow-origin": "*",
    "cross-origin-resource-policy": "cross-origin",
}


_IMAGE: dict[str, Any] = {"content": {f"image/{name}": {} for name in ("png", "jpeg", "webp")}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image."} | _IMAGE,
    206: {"description": "The requested byte range."} | _IMAGE,
    307: {"description": "The image is at the URL in Location for at most 60 seconds, if the operator has chosen it."},
    304: {"description": "The client already has the current image."},
    416: {"description": "The range is beyond the end of the file."},
    # 4XX instead of 404, because otherwise FastAPI would document a 422 that the server never sends.
    "4XX": {"model": ErrorBody, "description": "404: the link is invalid or has expired."},
}


@router.get(
    "/files/{token}/{name}", response_class=Response, responses=_RESPONSES, summary="Fetch an image by its link"
)
async def fetch(request: Request, token: str, name: str, service: ServiceDep) -> Response:
    """Return the image, a byte range of it, or 304 if the client already has it."""
    image_id = service.images.links.read(token, name)
    if service.images.redirects_links and _may_be_redirected(request):
        url = await service.images.redirect(image_id)
        if url is not None:
            return Response(status_code=307, headers=_REDIRECT | {"location": url})
    found = await service.images.read(image_id)
    if found is None:
        raise ImageNotFound
    image, data = found
    etag = f'"{image.sha256}"'
    lifetime_s = max(0, int(service.images.links.until(image) - service.clock()))
    headers = {
        "etag": etag,
        "accept-ranges": "bytes",
        "cache-control": f"public, max-age={lifetime_s}, immutable",
        "cross-origin-resource-policy": "cross-origin",
        "access-control-allow-origin": "*",
        "x-content-type-options": "nosniff",
        "content-disposition": f'inline; filename="{name}"',
    }
    if has_current(request, etag):
        return Response(status_code=304, headers=headers)
    part = _requested_range(request, etag, len(data))
    if part is None:
        return Response(data, 200, headers, image.content_type)
    if not part:
        return Response(status_code=416, headers=headers | {"content-range": f"bytes */{len(data)}"})
    headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{len(data)}"
    return Response(data[part.start : part.stop], 206, headers, image.content_type)


def _may_be_redirected(request: Request) -> bool:
    """Whether a request may be redirected to the bucket: a GET that no page of this server makes.

    A browser sends `Sec-Fetch-Site` with requests to secure origins and to this machine, and `Referer` otherwise.
    """
    referrer = urlsplit(request.headers.get("referer", "")).netloc
    is_from_page = request.headers.get("sec-fetch-site") == "same-origin" or (
        referrer != "" and referrer in (request.headers.get("host"), request.url.netloc)
    )
    # A signed URL of the bucket is valid for GET alone.
    return not request.scope.get("allaprima.is_head") and not is_from_page


def _requested_range(request: Request, etag: str, size: int) -> range | None:
    """Return the requested byte range (empty if it is beyond the end of the file), or None for the whole file.

    A request for several ranges receives the whole file, as the standard allows. Source: RFC 9110, section 14.
    """
    if request.headers.get("if-range", etag) != etag:
        return None
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return range(max(0, size - int(found[2])), size)
    last = min(int(found[2]), size - 1) if found[2] else size - 1
    if found[2] and int(found[2]) < int(found[1]):
        return None
    return range(int(found[1]), last + 1)
