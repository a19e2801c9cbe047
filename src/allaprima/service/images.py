"""Images: what a job generated, by id, and behind signed links.

A link needs no key, can't be guessed or forged, and ends with its image. Its path is
`/files/<expires>-<signature>/<image id>.<suffix>`; the signature is HMAC-SHA256 over the rest, with a secret of the
data folder.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass

from allaprima.domain.generation import GenerationResult
from allaprima.domain.jobs import Job, StoredImage
from allaprima.domain.ports import Clock, EphemeralResults
from allaprima.errors import GenerationFailed, ImageNotFound
from allaprima.store.images import ImageRepository
from allaprima.store.jobs import JobRepository


@dataclass(frozen=True, slots=True)
class JobImages:
    """The images of a succeeded job."""

    stored: tuple[StoredImage, ...] = ()
    #: The result itself, where `store=false` and it has not been delivered yet.
    ephemeral: GenerationResult | None = None
    #: The files of the stored images, where they were asked for.
    files: tuple[bytes, ...] = ()


class Links:
    """Signs and reads links."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def path(self, image: StoredImage, until: float | None = None) -> str:
        """Return a link's path. It works until that time, or until the image expires."""
        name = f"{image.id}.{image.object_name.rpartition('.')[2]}"
        expires = int(image.expires_at if until is None else until)
        return f"/files/{expires}-{self._sign(expires, name)}/{name}"

    def read(self, token: str, name: str, now: float) -> str:
        """Return the image id of a link's last two segments. Raises `ImageNotFound` for a forged or expired link."""
        expires, _, signature = token.partition("-")
        if not (expires.isascii() and expires.isdigit() and len(expires) < 16 and signature.isascii()):
            raise ImageNotFound
        if not hmac.compare_digest(signature.encode(), self._sign(int(expires), name).encode()):
            raise ImageNotFound
        if int(expires) <= now:
            raise ImageNotFound
        return name.partition(".")[0]

    def _sign(self, expires: int, name: str) -> str:
        text = f"{expires}/{name}".encode("utf-8", "surrogatepass")
        digest = hmac.new(self._secret, text, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:24]).decode()


class ImageService:
    """Finds, reads and removes images."""

    def __init__(
        self, images: ImageRepository, jobs: JobRepository, ephemeral: EphemeralResults, links: Links, clock: Clock
    ) -> None:
        self._images = images
        self._jobs = jobs
        self._ephemeral = ephemeral
        self._clock = clock
        self.links = links

    async def deliver(self, job: Job) -> JobImages:
        """Return a succeeded job's images to the client that waited for it; those of a `store=false` job once.

        Raises what `of` does.
        """
        ephemeral = self._ephemeral.take(job.id)
        return await self.of(job) if ephemeral is None else JobImages(ephemeral=ephemeral)

    async def of(self, job: Job) -> JobImages:
        """Return a succeeded job's stored images; with their files, where its answer delivers them.

        Raises `ImageNotFound` when none is left, `GenerationFailed` for one that is removed while it is read.
        """
        stored = (await self.of_all([job]))[job.id].stored
        if not stored:
            raise ImageNotFound("The images of this request are no longer here.")
        delivery = job.options.delivery
        if not (delivery.has_base64 or delivery.has_data_uris):
            return JobImages(stored)
        return JobImages(stored, files=tuple([await self._file(image) for image in stored]))

    async def of_all(self, jobs: list[Job]) -> dict[str, JobImages]:
        """Return the stored images of some jobs, without files, by job id."""
        found = await self._jobs.images_of([job.id for job in jobs], self._clock())
        return {job_id: JobImages(tuple(stored)) for job_id, stored in found.items()}

    async def _file(self, image: StoredImage) -> bytes:
        found = await self.read(image.id)
        if found is None:
            raise GenerationFailed("the image is no longer in the store")
        return found[1]

    async def find(self, account_id: str, image_id: str) -> StoredImage:
        """Return an account's image that has not expired. Raises `ImageNotFound`."""
        image = await self._images.find(image_id, self._clock())
        job = await self._jobs.get(image.job_id) if image else None
        if image is None or job is None or job.account_id != account_id:
            raise ImageNotFound
        return image

    async def read(self, image_id: str) -> tuple[StoredImage, bytes] | None:
        """Return an image that has not expired, row and file."""
        return await self._images.get(image_id, self._clock())

    async def remove(self, account_id: str, image_id: str) -> None:
        """Remove an image for good. Raises `ImageNotFound`."""
        await self.find(account_id, image_id)
        await self._images.remove(image_id)
