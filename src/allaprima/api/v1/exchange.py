"""An HTTP exchange: a request with its dialect, its base URL and the headers of its response."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse

from allaprima.api.deps import ServiceDep, SettingsDep
from allaprima.api.dialects import AIML, Dialect
from allaprima.api.dialects.base import JobView
from allaprima.api.http.base_url import base_url
from allaprima.domain.billing import to_usd
from allaprima.domain.jobs import Job, JobState, StoredImage
from allaprima.errors import ImageNotFound
from allaprima.service.app import Service
from allaprima.service.images import JobImages


@dataclass(slots=True)
class Exchange:
    """Builds the response of one exchange."""

    request: Request
    service: Service
    #: Scheme and host that links start with.
    base_url: str
    dialect: Dialect = AIML
    #: Headers of the response, collected while the request is handled.
    headers: dict[str, str] = field(default_factory=dict)

    def link(self, image: StoredImage) -> str:
        """Return an image's absolute URL."""
        return f"{self.base_url}{self.service.images.links.path(image)}"

    def thumbnail(self, image: StoredImage) -> str | None:
        """Return the absolute URL of an image's thumbnail; None for a withheld image."""
        path = self.service.images.links.thumbnail_path(image)
        return path and f"{self.base_url}{path}"

    def show_image(self, image: StoredImage, job: Job) -> dict[str, Any]:
        """Return the body of a stored image of a job."""
        return self.dialect.image(image, JobView(job, JobImages(), self.link, self.thumbnail))

    async def show(self, job: Job, images: JobImages | None = None) -> dict[str, Any]:
        """Return the body of a job. images: given for lists, whose jobs have links only and no queue position."""
        if images is not None:
            return self.dialect.job(JobView(job, images, self.link, self.thumbnail, is_listed=True))
        position = await self.service.jobs.positions.of(job)
        images = JobImages()
        if job.state == JobState.SUCCEEDED:
            # A job without images is shown without a result.
            with suppress(ImageNotFound):
                images = await self.service.images.of(job)
        return self.dialect.job(JobView(job, images, self.link, self.thumbnail, position))

    def reply(self, content: Any, status: int = 200, **headers: str) -> JSONResponse:
        """Return a response with the exchange's headers. headers: additional ones, with `_` for `-` in their names."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return JSONResponse(content, status, self.headers | named)

    def result(self, job: Job, images: JobImages, prompt: str) -> JSONResponse:
        """Return the response with the images of a succeeded job. prompt: the prompt that the client sent."""
        assert job.result is not None  # the job succeeded
        phases = {"queue": (job.started_at or job.created_at) - job.created_at} | job.result.timings.phases
        self.headers |= {
            "x-model": job.result.model,
            "x-aimlapi-credits-used": str(job.result.credits),
            "x-aimlapi-usd-spent": f"{to_usd(job.result.credits):.9f}",
            "server-timing": ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in phases.items()),
        }
        return self.reply(self.dialect.result(JobView(job, images, self.link, self.thumbnail, prompt=prompt)))


async def open_exchange(request: Request, service: ServiceDep, settings: SettingsDep) -> Exchange:
    """Return the exchange of a request. Raises `InvalidRequest` for a host name that is not allowed."""
    return Exchange(request, service, base_url(request, settings))


ExchangeDep = Annotated[Exchange, Depends(open_exchange)]
