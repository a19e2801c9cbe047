"""Thumbnails: made once from every stored format, bounded in size, memory and concurrency."""

import asyncio
import io
from dataclasses import replace

import pytest
from PIL import Image

from allaprima.domain.generation import ImageFormat
from allaprima.domain.jobs import StoredImage
from allaprima.errors import ImageNotFound, StoreError
from allaprima.service.thumbnails import CONCURRENCY, SIDE, ByteCache, Thumbnails, make_thumbnail
from allaprima.store.images import ImageRepository
from tests.clock import NOW, FakeClock
from tests.fakes import plain_image

IMAGE = StoredImage(
    id="01890a5d-ac96-774b-bcce-b302099a8057",
    job_id="job",
    position=0,
    object_name="01890a5d-ac96-774b-bcce-b302099a8057.png",
    content_type="image/png",
    size_bytes=100,
    sha256="0" * 64,
    seed=1,
    nsfw_score=None,
    is_flagged=False,
    created_at=NOW,
    expires_at=NOW + 60,
)


class CountedImages(ImageRepository):
    """Images in memory, which count how often files are read and how many reads run at a time."""

    def __init__(self, *images: StoredImage) -> None:
        self.images = {image.id: image for image in images}
        self.files = {image.object_name: plain_image(640, 480, (255, 0, 0), ImageFormat.PNG) for image in images}
        self.reads = 0
        self.running = 0
        self.most = 0

    async def find(self, image_id: str, now: float, account_id: str | None = None) -> StoredImage | None:
        image = self.images.get(image_id)
        return image if image and image.expires_at > now else None

    async def file(self, image: StoredImage) -> bytes | None:
        self.reads += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        return self.files.get(image.object_name)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def copies(count: int) -> list[StoredImage]:
    return [replace(IMAGE, id=f"image-{number}", object_name=f"image-{number}.png") for number in range(count)]


# One thumbnail ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", list(ImageFormat))
@pytest.mark.parametrize(
    ("size", "expected"),
    [((1536, 1536), (320, 320)), ((1024, 768), (320, 240)), ((64, 1536), (13, 320)), ((96, 64), (96, 64))],
)
def test_thumbnail_of_every_format_fits_its_side(
    image_format: ImageFormat, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    made = opened(make_thumbnail(plain_image(*size, (255, 40, 0), image_format)))
    assert (made.format, made.size, max(expected) <= SIDE) == ("WEBP", expected, True)
    red, green, blue = made.convert("RGB").getpixel((0, 0))  # type: ignore[misc]
    assert (red > 245, 30 < green < 50, blue < 12) == (True, True, True)


def test_thumbnail_contains_no_metadata() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "the secret prompt"
    Image.new("RGB", (640, 480)).save(file, "WEBP", exif=exif.tobytes())
    assert b"secret" in file.getvalue()
    made = make_thumbnail(file.getvalue())
    assert b"secret" not in made
    assert not opened(made).getexif()


@pytest.mark.parametrize("cut", [0, 10, 60])
def test_damaged_file_is_reported(cut: int) -> None:
    with pytest.raises(StoreError, match="the image file is damaged"):
        make_thumbnail(plain_image(640, 480, (1, 2, 3), ImageFormat.PNG)[:cut])


# Many thumbnails ----------------------------------------------------------------------------------------------------


async def test_concurrent_and_later_requests_make_a_thumbnail_once() -> None:
    images = CountedImages(IMAGE)
    thumbnails = Thumbnails(images, FakeClock())
    made = await asyncio.gather(*(thumbnails.read(IMAGE) for _ in range(20)))
    assert len({await thumbnails.read(IMAGE), *made}) == 1
    assert images.reads == 1


async def test_few_images_are_decoded_at_a_time() -> None:
    images = CountedImages(*copies(12))
    thumbnails = Thumbnails(images, FakeClock())
    await asyncio.gather(*(thumbnails.read(image) for image in images.images.values()))
    assert images.reads == 12
    assert images.most <= CONCURRENCY


async def test_thumbnail_whose_request_was_cancelled_is_made_for_the_next() -> None:
    images = CountedImages(IMAGE)
    thumbnails = Thumbnails(images, FakeClock())
    first = asyncio.create_task(thumbnails.read(IMAGE))
    second = asyncio.create_task(thumbnails.read(IMAGE))
    await asyncio.sleep(0)
    first.cancel()
    assert opened(await second).size == (320, 240)


async def test_kept_thumbnails_have_a_bound() -> None:
    images = CountedImages(*copies(3))
    size = len(make_thumbnail(images.files["image-0.png"]))
    thumbnails = Thumbnails(images, FakeClock(), max_bytes=2 * size)
    first, second, third = images.images.values()
    for image in (first, second, first, third, first):
        await thumbnails.read(image)
    assert images.reads == 3
    await thumbnails.read(second)
    assert images.reads == 4


def test_cache_drops_what_was_not_read_for_the_longest_time() -> None:
    cache = ByteCache(10)
    for name in "abc":
        cache.put(name, b"xxxx"[:3])
    assert cache.get("a") == b"xxx"
    cache.put("d", b"xxxx")
    assert [cache.get(name) for name in "abcd"] == [b"xxx", None, b"xxx", b"xxxx"]
    cache.put("a", b"x")
    cache.put("e", b"xx")
    assert [cache.get(name) for name in "acde"] == [b"x", b"xxx", b"xxxx", b"xx"]
    cache.put("f", b"x" * 11)
    assert cache.get("f") is None


async def test_withheld_expired_and_lost_images_have_no_thumbnail() -> None:
    clock = FakeClock()
    withheld, lost, old = copies(3)
    images = CountedImages(replace(withheld, is_flagged=True), lost, old)
    images.files.clear()
    thumbnails = Thumbnails(images, clock)
    assert await thumbnails.find(old.id) == old
    clock.now += 60
    for image_id in (withheld.id, old.id, "unknown"):
        with pytest.raises(ImageNotFound):
            await thumbnails.find(image_id)
    with pytest.raises(ImageNotFound):
        await thumbnails.read(lost)
