"""Images of jobs, by id and by signed link.

A link needs no key, can't be forged, and expires with its image at the latest. Its path is
`/files/<expires>-<signature>/<image id>.<suffix>`. The signature is an HMAC-SHA256 of the rest of the path with the
data folder's signing secret.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass

from allaprima.domain.clock import Clock, SteadyClock
from allaprima.domain.generation import GenerationResult
from allaprima.domain.jobs import Job, StoredImage
from allaprima.errors import GenerationFailed, ImageNotFound
from allaprima.store.images import ImageRepository
from allaprima.store.jobs import JobRepository


@dataclass(frozen=True, slots=True)
class JobImages:
    """The images of a succeeded job."""

    stored: tuple[StoredImage, ...] = ()
    #: The result of a job with `store=false`; else None.
    ephemeral: GenerationResult | None = None
    #: The files of the stored images, if the response contains them.
    files: tuple[bytes, ...] = ()


class Links:
    """Signs and verifies links. Their expiry does not count changes of the system's clock, which may follow."""

    def __init__(self, secret: bytes, clock: SteadyClock) -> None:
        self._secret = secret
        self._clock = clock

    def path(self, image: StoredImage, until: float | None = None) -> str:
        """Return the path of a link. until: its expiry in unix seconds; None: that of the image."""
        name = f"{image.id}.{image.object_name.rpartition('.')[2]}"
        expires = int(image.expires_at if until is None else until) - self._clock.shift
        return f"/files/{expires}-{self._sign(expires, name)}/{name}"

    def read(self, token: str, name: str) -> str:
        """Return the image id of a link. Raises `ImageNotFound` for a forged or expired link.

        token, name: the last two segments of its path.
        """
        expires, _, signature = token.partition("-")
        if not (expires.isascii() and expires.isdigit() and len(expires) < 16 and signature.isascii()):
            raise ImageNotFound
        if not hmac.compare_digest(signature.encode(), self._sign(int(expires), name).encode()):
            raise ImageNotFound
        if int(expires) + self._clock.shift <= self._clock():
            raise ImageNotFound
        return name.partition(".")[0]

    def _sign(self, expires: int, name: str) -> str:
        text = f"{expires}/{name}".encode("utf-8", "surrogatepass")
        digest = hmac.new(self._secret, text, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:24]).decode()


class ImageService:
    """Finds, reads and removes images."""

    def __init__(self, images: ImageRepository, jobs: JobRepository, links: Links, clock: Clock) -> None:
        self._images = images
        self._jobs = jobs
        self._clock = clock
        self.links = links

    async def of(self, job: Job) -> JobImages:
        """Return the stored images of a succeeded job, with their files if its response contains them.

        Raises `ImageNotFound` if none is left, or `GenerationFailed` if one is removed while it is read.
        """
        stored = (await self.of_all([job]))[job.id].stored
        if not stored:
            raise ImageNotFound("The images of this request were deleted or have expired.")
        delivery = job.options.delivery
        if not (delivery.has_base64 or delivery.has_data_uris):
            return JobImages(stored)
        return JobImages(stored, files=tuple([await self._file(image) for image in stored]))

    async def of_all(self, jobs: list[Job]) -> dict[str, JobImages]:
        """Return the stored images of several jobs by job id, without files."""
        found = await self._jobs.images_of([job.id for job in jobs], self._clock())
        return {job_id: JobImages(tuple(stored)) for job_id, stored in found.items()}

    async def _file(self, image: StoredImage) -> bytes:
        found = await self.read(image.id)
        if found is None:
            raise GenerationFailed("An image of this request was deleted.")
        return found[1]

    async def find(self, account_id: str, image_id: str) -> StoredImage:
        """Return the record of an account's image. Raises `ImageNotFound`, also for an expired image."""
        image = await self._images.find(image_id, self._clock())
        job = await self._jobs.get(image.job_id) if image else None
        if image is None or job is None or job.account_id != account_id:
            raise ImageNotFound
        return image

    async def read(self, image_id: str) -> tuple[StoredImage, bytes] | None:
        """Return the record and the file of an image, or None if it does not exist or has expired."""
        return await self._images.get(image_id, self._clock())

    async def remove(self, account_id: str, image_id: str) -> None:
        """Delete an image permanently. Raises `ImageNotFound`."""
        await self.find(account_id, image_id)
        await self._images.remove(image_id)
