"""The platform's dialect: reads and writes bodies for clients of the hosted endpoint and of OpenAI."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from allaprima.api.dialects.aiml import responses
from allaprima.api.dialects.aiml.requests import RequestBody
from allaprima.api.dialects.base import Dialect, ErrorReport, JobView, ParsedBody
from allaprima.domain.billing import to_usd
from allaprima.domain.events import Event
from allaprima.domain.generation import Timings
from allaprima.domain.jobs import Estimate, Job, JobState, QueuePosition, StoredImage
from allaprima.domain.progress import Preview
from allaprima.domain.timestamps import iso
from allaprima.domain.webhooks import JobEnd, LinkedImage, WebhookDelivery, WebhookMessage
from allaprima.service.models import Models

#: Error types that OpenAI's clients know, by HTTP status.
OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class AimlDialect(Dialect):
    """The wire format of `/v1/images/generations` and `/v1/jobs`."""

    name = "aiml"

    def parse(self, body: dict[str, Any], models: Models) -> ParsedBody:
        """See `Dialect`."""
        return RequestBody(body, models).parse()

    def result(self, view: JobView) -> dict[str, Any]:
        """See `Dialect`."""
        job, result = view.job, view.job.result
        assert result is not None  # the job succeeded
        ephemeral = view.images.ephemeral
        generated = ephemeral.images if ephemeral else ()
        files = _base64_files(view)
        images = [_stored_item(view, image) for image in view.images.stored]
        images += [_ephemeral_item(job, image.seed, image.nsfw_score) for image in generated]
        if job.options.delivery.has_data_uris and not view.is_listed:
            for item, text in zip(images, files, strict=True):
                item.url = f"data:{item.content_type};base64,{text}"
        data = [responses.DataItem(url=item.url) for item in images]
        if job.options.delivery.has_base64 and not view.is_listed:
            data = [responses.DataItem(b64_json=text) for text in files]
        body = responses.ImagesResponse(
            created=int(job.created_at),
            images=images,
            data=data,
            timings=_timings(result.timings),
            seed=job.request.seed,
            has_nsfw_concepts=[
                *(image.is_flagged for image in view.images.stored),
                *(image.is_flagged for image in generated),
            ],
            prompt=job.request.prompt if view.prompt is None else view.prompt,
            meta=responses.MetaBody(
                model=result.model,
                revision=result.revision,
                precision=result.precision,
                is_cached=result.is_cached,
                usage=_usage(result.credits),
                warnings=[*result.warnings, *(ephemeral.warnings if ephemeral else ())],
            ),
        )
        return body.model_dump(exclude_unset=True)

    def job(self, view: JobView) -> dict[str, Any]:
        """See `Dialect`."""
        job, position = view.job, view.position or QueuePosition()
        error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
        has_result = job.state == JobState.SUCCEEDED and bool(view.images.stored)
        return {
            "id": job.id,
            "object": "job",
            "status": job.state.value,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
            "queue_position": position.queue_position,
            "predicted_start": position.predicted_start,
            "predicted_finish": position.predicted_finish,
            "group_id": job.options.group_id,
            "request": _request(job),
            "result": self.result(view) if has_result else None,
            "error": error,
        }

    def image(self, image: StoredImage, view: JobView) -> dict[str, Any]:
        """See `Dialect`."""
        job = view.job
        return responses.ImageEntry(
            id=image.id,
            object="image",
            job_id=job.id,
            position=image.position,
            url=view.link(image),
            thumbnail_url=view.thumbnail(image),
            content_type=image.content_type,
            size_bytes=image.size_bytes,
            width=job.request.width,
            height=job.request.height,
            seed=image.seed,
            flagged=image.is_flagged,
            starred=image.is_starred,
            created_at=int(image.created_at),
            expires_at=_expiry(image),
            prompt=job.request.prompt,
            model=job.options.model,
            served_by=job.result.model if job.result else job.request.model,
            request=responses.JobRequestBody(**_request(job)),
        ).model_dump()

    def estimate(self, estimate: Estimate) -> dict[str, Any]:
        """See `Dialect`."""
        request = estimate.request
        return responses.EstimateResponse(
            object="quote",
            model=estimate.options.model,
            served_by=request.model,
            tokens=estimate.tokens,
            max_tokens=estimate.max_tokens,
            image_size=responses.Size(width=request.width, height=request.height),
            num_images=request.count,
            num_inference_steps=request.steps,
            usage=_usage(estimate.credits),
            seconds=round(estimate.seconds, 3),
            predicted_start=round(estimate.predicted_start, 3),
            predicted_finish=round(estimate.predicted_start + estimate.seconds, 3),
            warnings=[*estimate.options.warnings, *estimate.prompt_warnings],
        ).model_dump()

    def event(self, event: Event) -> dict[str, Any]:
        """See `Dialect`."""
        if isinstance(event.data, Preview):
            return {"step": event.data.step, "steps": event.data.steps, "images": _preview_items(event.data)}
        return {} if event.data is None else {name: getattr(event.data, name) for name in _names(event.data)}

    def error(self, report: ErrorReport) -> dict[str, Any]:
        """See `Dialect`."""
        prefix = "Body validation error! " if report.problems else ""
        message = _utf8(f"{prefix}{report.message}")
        kind = OPENAI_TYPES.get(report.status, "invalid_request_error" if report.status < 500 else "server_error")
        param = _utf8(report.problems[0].field) if report.problems else None
        body: dict[str, Any] = {
            "requestId": report.request_id,
            "statusCode": report.status,
            "timestamp": iso(report.at),
            "path": _utf8(report.path),
            "message": message,
            "error": {"message": message, "type": kind, "param": param, "code": report.code},
        }
        return body if report.job_id is None else body | {"job_id": report.job_id}

    def webhook(self, delivery: WebhookDelivery, end: JobEnd, now: float) -> WebhookMessage:
        """See `WebhookFormat`. The signature covers id, time and body (Standard Webhooks specification)."""
        payload = {
            "type": delivery.event,
            "timestamp": iso(delivery.created_at),
            "data": {"id": delivery.job_id} if end.job is None else _webhook_job(end.job, end.images),
        }
        body = json.dumps(payload, separators=(",", ":"))
        at = datetime.fromtimestamp(int(now), UTC)
        signatures = [Webhook(secret).sign(delivery.id, at, body) for secret in delivery.secrets]
        headers = {
            "content-type": "application/json",
            "user-agent": "allaprima",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": " ".join(signatures),
        }
        return WebhookMessage(body.encode(), headers)


def _names(data: Any) -> Sequence[str]:
    return tuple(type(data).__dataclass_fields__)


def _utf8(text: str) -> str:
    """Return text with lone surrogates, which UTF-8 can't encode, replaced by escape sequences."""
    return text.encode("utf-8", "backslashreplace").decode()


def _usage(credits_: int) -> responses.UsageBody:
    return responses.UsageBody(credits_used=credits_, usd_spent=to_usd(credits_))


def _timings(timings: Timings) -> responses.TimingsBody:
    return responses.TimingsBody(inference=timings.inference, **timings.model_dump())


def _base64_files(view: JobView) -> list[str]:
    """Return the image files in base64; empty for a view without files."""
    generated = view.images.ephemeral.images if view.images.ephemeral else ()
    return [base64.b64encode(data).decode() for data in (*view.images.files, *(image.data for image in generated))]


def _stored_item(view: JobView, image: StoredImage) -> responses.ImageItem:
    request = view.job.request
    return responses.ImageItem(
        id=image.id,
        url=view.link(image),
        width=request.width,
        height=request.height,
        content_type=image.content_type,
        seed=image.seed,
        sha256=image.sha256,
        nsfw_score=image.nsfw_score,
        expires_at=_expiry(image),
        starred=image.is_starred,
        thumbnail_url=view.thumbnail(image),
    )


def _expiry(image: StoredImage) -> int | None:
    return None if image.is_starred else int(image.expires_at)


def _ephemeral_item(job: Job, seed: int, nsfw_score: float | None) -> responses.ImageItem:
    return responses.ImageItem(
        id=None,
        url=None,
        width=job.request.width,
        height=job.request.height,
        content_type=job.request.image_format.content_type,
        seed=seed,
        sha256=None,
        nsfw_score=nsfw_score,
        expires_at=None,
        starred=False,
        thumbnail_url=None,
    )


def _preview_items(preview: Preview) -> list[dict[str, Any]]:
    return [
        {
            "url": None if image.is_flagged else f"data:image/jpeg;base64,{base64.b64encode(image.data).decode()}",
            "nsfw_score": image.nsfw_score,
            "is_flagged": image.is_flagged,
        }
        for image in preview.images
    ]


def _request(job: Job) -> dict[str, Any]:
    request = job.request
    return {
        "model": job.options.model,
        "prompt": request.prompt,
        "image_size": {"width": request.width, "height": request.height},
        "num_images": request.count,
        "num_inference_steps": request.steps,
        "seed": request.seed,
        "enable_safety_checker": request.check_safety,
        "output_format": request.image_format.value,
        "on_long_prompt": request.on_long_prompt.value,
        "priority": job.options.priority.value,
    }


def _webhook_job(job: Job, images: Sequence[LinkedImage]) -> dict[str, Any]:
    return {
        "id": job.id,
        "object": "job",
        "status": job.state.value,
        "group_id": job.options.group_id,
        "model": job.options.model,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "images": [
            {
                "id": one.image.id,
                "url": one.url,
                "seed": one.image.seed,
                "sha256": one.image.sha256,
                "has_nsfw_concepts": one.image.is_flagged,
                "expires_at": _expiry(one.image),
            }
            for one in images
        ],
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
    }
