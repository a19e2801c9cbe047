"""A finished job to the answer that its client asked for: links, base64 or data URIs."""

import base64
from collections.abc import Sequence

from allaprima.api.dialects.aiml import responses
from allaprima.domain.billing import to_usd
from allaprima.domain.generation import GenerationResult
from allaprima.domain.jobs import Job, JobState, StoredImage
from allaprima.errors import Cancelled, Error, GenerationFailed, StartDeadlineMissed
from allaprima.service.app import Service


def raise_if_unpainted(job: Job) -> None:
    """Raise what a finished job without pictures failed of."""
    if job.state == JobState.SUCCEEDED:
        return
    if job.state == JobState.CANCELLED:
        raise Cancelled
    failures: tuple[type[Error], ...] = (StartDeadlineMissed,)
    known = next((kind for kind in failures if kind.code == job.error_code), GenerationFailed)
    raise known(job.error_message)


async def answer(
    service: Service,
    job: Job,
    pictures: Sequence[StoredImage],
    origin: str,
    painting: GenerationResult | None = None,
    *,
    as_links: bool = False,
    prompt: str | None = None,
) -> responses.ImagesAnswer:
    """Return the body that tells of a succeeded job. painting: the pictures themselves where none was stored.

    origin: what links start with. as_links: give links whatever was asked. prompt: as the client sent it, where the job
    does not keep it.
    """
    result = job.result or {}
    in_base64, as_data_uri = (asked and not as_links for asked in (job.terms.in_base64, job.terms.as_data_uri))
    files = await _files(service, job, pictures, painting) if in_base64 or as_data_uri else []
    shown = [_image(service, job, picture, origin) for picture in pictures] or [
        responses.AnswerImage(
            id=None,
            url=None,
            width=job.request.width,
            height=job.request.height,
            content_type=job.request.image_format.content_type,
            seed=image.seed,
            sha256=None,
            nsfw_score=image.nsfw_score,
            expires_at=None,
        )
        for image in (painting.images if painting else ())
    ]
    flags = [one.is_flagged for one in (pictures or (painting.images if painting else ()))]
    data = [responses.AnswerData(url=image.url) for image in shown]
    if in_base64:
        data = [responses.AnswerData(b64_json=text) for text in files]
    if as_data_uri:
        for image, text in zip(shown, files, strict=True):
            image.url = f"data:{image.content_type};base64,{text}"
        if not in_base64:
            data = [responses.AnswerData(url=image.url) for image in shown]
    return responses.ImagesAnswer(
        created=int(job.created_at),
        images=shown,
        data=data,
        timings=responses.AnswerTimings(**result["timings"]),
        seed=job.request.seed,
        has_nsfw_concepts=flags,
        prompt=job.request.prompt if prompt is None else prompt,
        meta=responses.AnswerMeta(
            model=result["model"],
            revision=result["revision"],
            precision=result.get("precision"),
            is_cached=result.get("is_cached", False),
            usage=usage(job),
            warnings=result["warnings"],
        ),
    )


def usage(job: Job) -> responses.AnswerUsage:
    """Return what a job cost."""
    credits_ = (job.result or {}).get("credits", 0)
    return responses.AnswerUsage(credits_used=credits_, usd_spent=to_usd(credits_))


async def _files(
    service: Service, job: Job, pictures: Sequence[StoredImage], painting: GenerationResult | None
) -> list[str]:
    """Return the files in base64, where the answer is to hold them."""
    if painting is not None:
        return [base64.b64encode(image.data).decode() for image in painting.images]
    if not job.terms.is_kept:
        raise GenerationFailed("the pictures were not to be stored, and were given out once")
    return [base64.b64encode(await service.jobs.read_object(picture)).decode() for picture in pictures]


def _image(service: Service, job: Job, picture: StoredImage, origin: str) -> responses.AnswerImage:
    return responses.AnswerImage(
        id=picture.id,
        url=f"{origin}{service.links.path(picture)}",
        width=job.request.width,
        height=job.request.height,
        content_type=picture.content_type,
        seed=picture.seed,
        sha256=picture.sha256,
        nsfw_score=picture.nsfw_score,
        expires_at=int(picture.expires_at),
    )
