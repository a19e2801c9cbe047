"""`POST /v1/images/generations`: generates images and waits for them. Also signs and deletes stored images."""

from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from allaprima.api.deps import ImageKey, ServiceDep, SettingsDep
from allaprima.api.dialects.aiml.responses import EstimateResponse, ImagesResponse
from allaprima.api.errors import problems
from allaprima.api.http.body import read_model
from allaprima.api.http.deleted import Deleted
from allaprima.api.http.openapi import body_of, request_body
from allaprima.api.v1.delivery import deliver
from allaprima.api.v1.exchange import ExchangeDep
from allaprima.api.v1.paths import IMAGES_PATH, OTHER_IMAGES_PATHS
from allaprima.api.v1.submission import ReadSubmission
from allaprima.api.v1.waiting import wait_for
from allaprima.domain.fields import Seconds
from allaprima.errors import FieldProblem, InvalidRequest

router = APIRouter(tags=["images"])


@router.post(
    IMAGES_PATH,
    response_model=ImagesResponse | EstimateResponse,
    response_model_exclude_unset=True,
    responses=problems(400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503, 504),
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


class SignRequest(BaseModel):
    """Lifetime of a new link."""

    model_config = ConfigDict(extra="forbid")

    expires_in: Seconds | None = Field(None, description="Lifetime in seconds; default: until the image expires.")


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
    """Return a link that needs no key and works for the given time, by default until the image expires."""
    body = await read_model(request, settings, SignRequest)
    image = await service.images.find(key.account_id, str(image_id))
    until = image.expires_at if body.expires_in is None else service.clock() + body.expires_in
    if until > image.expires_at:
        left = int(image.expires_at - service.clock())
        raise InvalidRequest(FieldProblem("expires_in", f"must be at most {left}, because the image expires then"))
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
