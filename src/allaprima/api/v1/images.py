"""`POST /v1/images/generations` generates images; `/v1/images` lists, stars, signs and deletes stored ones."""

import json
import re
from collections import Counter
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from allaprima.api.deps import ImageKey, ServiceDep, SettingsDep
from allaprima.api.dialects.aiml.responses import EstimateResponse, ImageEntry, ImagesPage, ImagesResponse
from allaprima.api.errors import problems
from allaprima.api.http.body import read_model
from allaprima.api.http.deleted import Deleted
from allaprima.api.http.openapi import body_of, request_body
from allaprima.api.http.pagination import Cursor, write_cursor
from allaprima.api.http.query import PageSize, QueryModel, one_of, query_of
from allaprima.api.v1.delivery import deliver
from allaprima.api.v1.exchange import ExchangeDep
from allaprima.api.v1.paths import IMAGES_PATH, OTHER_IMAGES_PATHS
from allaprima.api.v1.submission import ReadSubmission
from allaprima.api.v1.waiting import wait_for
from allaprima.domain.fields import Flag, Seconds, refusal
from allaprima.domain.jobs import ImageFilter
from allaprima.errors import FieldProblem, InvalidRequest

router = APIRouter(tags=["images"])

#: Longest text of a search, in characters.
MAX_SEARCH = 200
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def _search_text(value: str) -> str:
    if len(value) > MAX_SEARCH:
        raise refusal(f"must have at most {MAX_SEARCH} characters; it has {len(value)}")
    if "\x00" in value:
        raise refusal("must not contain the NUL character")
    return value


@router.post(
    IMAGES_PATH,
    response_model=ImagesResponse | EstimateResponse,
    response_model_exclude_unset=True,
    responses=problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503, 504, 507),
    openapi_extra=request_body(),
    summary="Generate images from a prompt",
)
async def create(
    submission: ReadSubmission, service: ServiceDep, exchange: ExchangeDep, settings: SettingsDep
) -> Response:
    """Generate images and return links to them, or the images themselves if the request asks for them."""
    if submission.dry_run:
        return exchange.reply(exchange.dialect.estimate(await service.admission.estimate(submission)))
    job = await service.admission.submit(submission)
    if not job.options.store:
        return await deliver(job, submission.request.prompt, exchange, settings.wait_s)
    job = await wait_for(job, submission, exchange, settings.wait_s)
    return exchange.result(job, await service.images.of(job), submission.request.prompt)


for _path in OTHER_IMAGES_PATHS:
    router.add_api_route(_path, create, methods=["POST"], include_in_schema=False)


#: Most images of an archive.
MAX_ARCHIVE = 500
_IDS_SCHEMA = {
    "type": "array",
    "items": {"type": "string", "format": "uuid"},
    "minItems": 1,
    "maxItems": MAX_ARCHIVE,
    "uniqueItems": True,
}


def _ids(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise refusal("must be a list of strings")
    if not 1 <= len(value) <= MAX_ARCHIVE:
        raise refusal(f"must have from 1 to {MAX_ARCHIVE} ids; it has {len(value)}")
    if strange := [one for one in value if not _ID.fullmatch(one)]:
        raise refusal(f"must contain ids of images; {json.dumps(strange[0])[:60]} is none")
    if repeated := [one for one, count in Counter(value).items() if count > 1]:
        raise refusal(f"must contain every id once; {repeated[0]} is repeated")
    return value


class ImagesQuery(QueryModel):
    """The parameters of the list of images."""

    q: Annotated[str, AfterValidator(_search_text)] = Field(
        "",
        description=f"Only images whose prompt contains every word, in any letter case; at most {MAX_SEARCH}.",
    )
    starred: Annotated[Literal["true", "false"], one_of(("true", "false"))] = Field(
        "false", description="true: only starred images."
    )
    key_prefix: str | None = Field(None, description="Only images generated with the key of this prefix.")
    limit: PageSize = Field(20, description="Largest number of images per page.")
    cursor: Cursor | None = Field(None, description="The next_cursor of the previous page.")


@router.get(
    "/v1/images", response_model=ImagesPage, responses=problems(400, 401, 403, 404), summary="List images, newest first"
)
async def list_images(
    key: ImageKey, service: ServiceDep, exchange: ExchangeDep, query: Annotated[ImagesQuery, query_of(ImagesQuery)]
) -> Response:
    """Return a page of the account's images, each with the request that generated it."""
    key_id = None
    if query.key_prefix is not None:
        key_id = (await service.keys.find_any(query.key_prefix, key.account_id)).id
    wanted = ImageFilter(words=query.q, is_starred=query.starred == "true", key_id=key_id, before=query.cursor)
    found = await service.images.page(key.account_id, wanted, query.limit + 1)
    page, has_more = found[: query.limit], len(found) > query.limit
    shown = [exchange.show_image(image, job) for image, job in page]
    next_cursor = write_cursor(page[-1][0].id) if has_more else None
    return exchange.reply({"object": "list", "data": shown, "has_more": has_more, "next_cursor": next_cursor})


@router.get(
    "/v1/images/{image_id:uuid}",
    response_model=ImageEntry,
    responses=problems(401, 403, 404),
    summary="Show an image",
)
async def show(image_id: UUID, key: ImageKey, service: ServiceDep, exchange: ExchangeDep) -> Response:
    """Return an image with the request that generated it."""
    return exchange.reply(exchange.show_image(*await service.images.with_job(key.account_id, str(image_id))))


class ArchiveRequest(BaseModel):
    """The images of an archive."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[str], BeforeValidator(_ids), WithJsonSchema(_IDS_SCHEMA)] = Field(
        description="Ids of the images, each once, in the order of the archive."
    )


@router.post(
    "/v1/images/archive",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/zip": {}}}, **problems(400, 401, 403, 404, 408, 413, 415)},
    openapi_extra=body_of(ArchiveRequest, is_required=True),
    summary="Fetch several images as a ZIP archive",
)
async def archive(request: Request, key: ImageKey, service: ServiceDep, settings: SettingsDep) -> Response:
    """Return a ZIP archive of images, named after their prompts and seeds. It is written while it is sent."""
    body = await read_model(request, settings, ArchiveRequest)
    parts = await service.archives.open(key.account_id, body.ids)
    headers = {"content-disposition": 'attachment; filename="images.zip"', "cache-control": "no-store"}
    return StreamingResponse(parts, headers=headers, media_type="application/zip")


class ImageChange(BaseModel):
    """Changes of an image."""

    model_config = ConfigDict(extra="forbid")

    starred: Flag = Field(
        description="true: the image stays until it is unstarred. false: it expires at its time, or in a day if that "
        "has passed."
    )


@router.patch(
    "/v1/images/{image_id:uuid}",
    response_model=ImageEntry,
    responses=problems(400, 401, 403, 404, 408, 413, 415, 507),
    openapi_extra=body_of(ImageChange, is_required=True),
    summary="Star or unstar an image",
)
async def change(
    request: Request, image_id: UUID, key: ImageKey, service: ServiceDep, settings: SettingsDep, exchange: ExchangeDep
) -> Response:
    """Star an image, so that it does not expire, or unstar it; return the image."""
    body = await read_model(request, settings, ImageChange)
    await service.images.set_star(key.account_id, str(image_id), is_starred=body.starred)
    return exchange.reply(exchange.show_image(*await service.images.with_job(key.account_id, str(image_id))))


class SignRequest(BaseModel):
    """Lifetime of a new link."""

    model_config = ConfigDict(extra="forbid")

    expires_in: Seconds | None = Field(None, description="Lifetime in seconds; default: the longest.")


class SignedImage(BaseModel):
    """A new link to an image."""

    id: str
    url: str
    expires_at: int = Field(description="Unix seconds when the link expires.")


@router.post(
    "/v1/images/{image_id:uuid}/sign",
    responses=problems(400, 401, 403, 404, 408, 413, 415),
    openapi_extra=body_of(SignRequest, is_required=False),
    summary="Create a new link to an image",
)
async def sign(
    request: Request, image_id: UUID, key: ImageKey, service: ServiceDep, settings: SettingsDep, exchange: ExchangeDep
) -> SignedImage:
    """Return a link that needs no key and works for the given time, by default and at most until the image expires.

    A link to a starred image works for at most eight days.
    """
    body = await read_model(request, settings, SignRequest)
    image = await service.images.find(key.account_id, str(image_id))
    latest = service.images.links.until(image)
    until = latest if body.expires_in is None else service.clock() + body.expires_in
    if until > latest:
        left = int(latest - service.clock())
        reason = "a link to a starred image lasts no longer" if image.is_starred else "the image expires then"
        raise InvalidRequest(FieldProblem("expires_in", f"must be at most {left}, because {reason}"))
    link = f"{exchange.base_url}{service.images.links.path(image, until)}"
    return SignedImage(id=image.id, url=link, expires_at=int(until))


@router.delete(
    "/v1/images/{image_id:uuid}",
    responses=problems(401, 403, 404),
    summary="Delete an image",
)
async def remove(image_id: UUID, key: ImageKey, service: ServiceDep) -> Deleted:
    """Delete an image permanently. Its links stop working immediately."""
    await service.images.remove(key.account_id, str(image_id))
    return Deleted(id=str(image_id), object="image", deleted=True)
