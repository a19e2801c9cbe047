"""Images of jobs: the gallery of an account, stars, and signed links.

A link needs no key, can't be forged, and works no longer than its image exists. Its path is
`/files/<expires>-<signature>/<image id>.<suffix>`, or that of a thumbnail,
`/thumbnails/<expires>-<signature>/<image id>.webp`. The signature is an HMAC-SHA256 of the rest of the path with the
data folder's signing secret.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass

from allaprima.domain.clock import Clock, SteadyClock
from allaprima.domain.generation import GenerationResult
from allaprima.domain.jobs import ImageFilter, Job, StoredImage
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


#: Shortest lifetime of a link to a starred image, in days.
STARRED_LINK_DAYS = 7
DAY_S = 86_400
#: Lifetime of the URLs of the image store to which links redirect, in seconds.
REDIRECT_S = 60.0
_FILES, _THUMBNAILS = "files", "thumbnails"


class Links:
    """Signs and verifies links. Their expiry does not count changes of the system's clock, which may follow."""

    def __init__(self, secret: bytes, clock: SteadyClock) -> None:
        self._secret = secret
        self._clock = clock

    def until(self, image: StoredImage) -> float:
        """Return the default expiry of an image's links, in unix seconds: that of the image.

        The links of a starred image expire at the end of a day at least `STARRED_LINK_DAYS` later, so that its URL is
        the same all day and browsers can cache it.
        """
        if not image.is_starred:
            return image.expires_at
        day = (self._clock() - self._clock.shift) // DAY_S
        return (day + 1 + STARRED_LINK_DAYS) * DAY_S + self._clock.shift

    def path(self, image: StoredImage, until: float | None = None) -> str:
        """Return the path of a link to an image. until: its expiry in unix seconds; None: the default."""
        name = f"{image.id}.{image.object_name.rpartition('.')[2]}"
        return self._path(_FILES, name, self.until(image) if until is None else until)

    def thumbnail_path(self, image: StoredImage) -> str | None:
        """Return the path of a link to an image's thumbnail; None for a withheld image, which has none."""
        return None if image.is_flagged else self._path(_THUMBNAILS, f"{image.id}.webp", self.until(image))

    def read(self, token: str, name: str) -> str:
        """Return the image id of a link. Raises `ImageNotFound` for a forged or expired link.

        token, name: the last two segments of its path.
        """
        return self._read(_FILES, token, name)

    def read_thumbnail(self, token: str, name: str) -> str:
        """Return the image id of a link to a thumbnail, as `read` does."""
        return self._read(_THUMBNAILS, token, name)

    def _path(self, kind: str, name: str, until: float) -> str:
        expires = int(until) - self._clock.shift
        return f"/{kind}/{expires}-{self._sign(kind, expires, name)}/{name}"

    def _read(self, kind: str, token: str, name: str) -> str:
        expires, _, signature = token.partition("-")
        if not (expires.isascii() and expires.isdigit() and len(expires) < 16 and signature.isascii()):
            raise ImageNotFound
        if not hmac.compare_digest(signature.encode(), self._sign(kind, int(expires), name).encode()):
            raise ImageNotFound
        if int(expires) + self._clock.shift <= self._clock():
            raise ImageNotFound
        return name.partition(".")[0]

    def _sign(self, kind: str, expires: int, name: str) -> str:
        # Links to files are signed without their kind, as in earlier versions, whose links still work.
        text = f"{expires}/{name}" if kind == _FILES else f"{kind}/{expires}/{name}"
        digest = hmac.new(self._secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:24]).decode()


class ImageService:
    """Finds, reads, stars and removes images."""

    def __init__(
        self,
        images: ImageRepository,
        jobs: JobRepository,
        links: Links,
        clock: Clock,
        max_starred_bytes: int,
        *,
        redirects_links: bool = False,
    ) -> None:
        """max_starred_bytes: most bytes of an account's starred images.

        redirects_links: whether links redirect to the image store, if it has URLs.
        """
        self._images = images
        self._jobs = jobs
        self._clock = clock
        self._max_starred_bytes = max_starred_bytes
        self.links = links
        self.redirects_links = redirects_links

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
        image = await self._images.find(image_id, self._clock(), account_id)
        if image is None:
            raise ImageNotFound
        return image

    async def page(self, account_id: str, wanted: ImageFilter, limit: int) -> list[tuple[StoredImage, Job]]:
        """Return an account's images with their jobs, newest first."""
        return await self._images.page(account_id, wanted, limit, self._clock())

    async def with_job(self, account_id: str, image_id: str) -> tuple[StoredImage, Job]:
        """Return an account's image with its job. Raises `ImageNotFound`."""
        found = await self._images.of_account(account_id, [image_id], self._clock())
        if image_id not in found:
            raise ImageNotFound
        return found[image_id]

    async def set_star(self, account_id: str, image_id: str, *, is_starred: bool) -> None:
        """Keep an image until it is unstarred, or let it expire. Raises `ImageNotFound` or `StarLimitReached`."""
        if is_starred:
            await self._images.star(account_id, image_id, self._max_starred_bytes, self._clock())
        else:
            await self._images.unstar(account_id, image_id, self._clock())

    async def read(self, image_id: str) -> tuple[StoredImage, bytes] | None:
        """Return the record and the file of an image, or None if it does not exist or has expired."""
        return await self._images.get(image_id, self._clock())

    async def redirect(self, image_id: str) -> str | None:
        """Return a short-lived URL of the image store for an image; None if the store has none.

        Raises `ImageNotFound`, also for an expired image.
        """
        now = self._clock()
        image = await self._images.find(image_id, now)
        if image is None:
            raise ImageNotFound
        remaining_s = REDIRECT_S if image.is_starred else image.expires_at - now
        return await self._images.signed_url(image, min(REDIRECT_S, max(1.0, remaining_s)))

    async def remove(self, account_id: str, image_id: str) -> None:
        """Delete an image permanently. Raises `ImageNotFound`."""
        await self.find(account_id, image_id)
        await self._images.remove(image_id)
