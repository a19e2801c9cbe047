"""Images by id and by signed link; links can't be guessed, forged or used for another image."""

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allaprima.domain.accounts import ApiKey
from allaprima.domain.clock import Clocks, SteadyClock
from allaprima.domain.jobs import Delivery, StoredImage
from allaprima.domain.ports import ObjectStore
from allaprima.errors import GenerationFailed, ImageNotFound, StoreError
from allaprima.service.app import Service
from allaprima.service.images import Links
from allaprima.store.secret import SECRET_BYTES, SECRET_FILE, read_secret
from tests.fakes import NOW, FakeClock, FakeEngine
from tests.service.jobs.submitting import REQUEST, finish, submit

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
    expires_at=NOW + 60.5,
)
CLOCK = FakeClock()
LINKS = Links(b"s" * 32, SteadyClock(Clocks(CLOCK, CLOCK)))


def read(token: str, name: str, now: float = NOW, links: Links = LINKS) -> str:
    """Read a link at a time."""
    CLOCK.now = now
    return links.read(token, name)


def parts(path: str) -> tuple[str, str]:
    start, files, token, name = path.split("/")
    assert (start, files) == ("", "files")
    return token, name


TOKEN, NAME = parts(LINKS.path(IMAGE))
EXPIRES, _, SIGNATURE = TOKEN.partition("-")


def test_link_opens_its_image() -> None:
    assert read(TOKEN, NAME) == IMAGE.id
    assert IMAGE.object_name == NAME


def test_image_link_is_stable() -> None:
    assert LINKS.path(IMAGE) == Links(b"s" * 32, SteadyClock(Clocks(CLOCK, CLOCK))).path(IMAGE)


def test_signature_has_192_bits() -> None:
    assert len(base64.urlsafe_b64decode(SIGNATURE)) == 24


def test_link_expires_with_its_image() -> None:
    assert read(TOKEN, NAME, NOW + 59.9) == IMAGE.id
    for now in (NOW + 60, NOW + 60.5, NOW + 10**9):
        with pytest.raises(ImageNotFound):
            read(TOKEN, NAME, now)


def test_link_stays_the_same_when_the_clock_is_set() -> None:
    clock = SteadyClock(Clocks(CLOCK, CLOCK))
    links, set_by = Links(b"s" * 32, clock), 400 * 86_400
    clock.shift += set_by
    later = replace(IMAGE, expires_at=IMAGE.expires_at + set_by)
    assert links.path(later) == LINKS.path(IMAGE)
    assert read(TOKEN, NAME, NOW + set_by + 59.9, links) == IMAGE.id
    with pytest.raises(ImageNotFound):
        read(TOKEN, NAME, NOW + set_by + 60, links)


def test_link_does_not_open_other_image() -> None:
    for name in ("other.png", NAME.upper(), NAME + "x", NAME.replace("png", "webp"), IMAGE.id, "", f"x/{NAME}"):
        with pytest.raises(ImageNotFound):
            read(TOKEN, name)


def test_link_with_changed_expiry_is_refused() -> None:
    for expires in (str(int(EXPIRES) + 1), "9" * 15, "9" * 400, "", "-1", f"{EXPIRES}.0", f" {EXPIRES}", "\u00b2"):
        with pytest.raises(ImageNotFound):
            read(f"{expires}-{SIGNATURE}", NAME)


def test_link_of_other_secret_is_refused() -> None:
    for secret in (b"", b"t" * 32, b"s" * 31):
        with pytest.raises(ImageNotFound):
            read(TOKEN, NAME, links=Links(secret, SteadyClock(Clocks(CLOCK, CLOCK))))


def test_signature_with_one_wrong_character_is_refused() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place, right in enumerate(SIGNATURE):
        for wrong in {*alphabet, "=", "\u00fc"} - {right}:
            forged = SIGNATURE[:place] + wrong + SIGNATURE[place + 1 :]
            with pytest.raises(ImageNotFound):
                read(f"{EXPIRES}-{forged}", NAME)


def test_images_have_different_signatures() -> None:
    other = replace(IMAGE, id="x", object_name="x.png")
    assert parts(LINKS.path(other))[0] != TOKEN


@given(token=st.text(), name=st.text(), now=st.floats(allow_nan=False))
def test_random_links_are_refused(token: str, name: str, now: float) -> None:
    with pytest.raises(ImageNotFound):
        read(token, name, now)


SIGNATURES = st.binary(min_size=24, max_size=24).map(base64.urlsafe_b64encode).map(bytes.decode)


@given(
    expires=st.integers(0, 10**16).map(str) | st.text(max_size=20),
    signature=st.text(max_size=40) | SIGNATURES,
    name=st.just(NAME) | st.text(st.characters(exclude_categories=()), max_size=40),
)
def test_forged_links_are_refused(expires: str, signature: str, name: str) -> None:
    with pytest.raises(ImageNotFound):
        read(f"{expires}-{signature}", name, 0)


def test_secret_is_created_once_for_owner_only(tmp_path: Path) -> None:
    secret = read_secret(tmp_path)
    assert len(secret) == SECRET_BYTES
    assert read_secret(tmp_path) == secret
    assert (tmp_path / SECRET_FILE).stat().st_mode & 0o777 == 0o600


def test_data_folders_have_different_secrets(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert read_secret(tmp_path_factory.mktemp("a")) != read_secret(tmp_path_factory.mktemp("b"))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_secret_of_wrong_length_is_refused_with_path(tmp_path: Path, size: int) -> None:
    (tmp_path / SECRET_FILE).write_bytes(b"s" * size)
    with pytest.raises(StoreError, match=f"{tmp_path / SECRET_FILE} has {size} bytes, not 32"):
        read_secret(tmp_path)


def test_truncated_secret_is_created_again(tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).with_suffix(".new").write_bytes(b"half of i")
    assert len(read_secret(tmp_path)) == SECRET_BYTES
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_FILE]


def test_unreadable_secret_is_refused_with_path(tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).mkdir()
    with pytest.raises(StoreError, match=f"{tmp_path / SECRET_FILE} can't be used"):
        read_secret(tmp_path)


# Images of a service ------------------------------------------------------------------------------------------------


async def test_image_expires(service: Service, owner: ApiKey, clock: FakeClock) -> None:
    job = await finish(service, await submit(service, owner))
    [image] = (await service.images.of(job)).stored
    assert await service.images.find(owner.account_id, image.id) == image
    clock.now = image.expires_at
    assert await service.images.read(image.id) is None
    for gone in (service.images.find(owner.account_id, image.id), service.images.of(job)):
        with pytest.raises(ImageNotFound):
            await gone


async def test_image_expires_after_requested_time(service: Service, owner: ApiKey, clock: FakeClock) -> None:
    job = await finish(service, await submit(service, owner, image_ttl_s=3600))
    [image] = (await service.images.of(job)).stored
    assert image.expires_at == clock.now + 3600


async def test_image_of_other_account_is_not_found(service: Service, owner: ApiKey) -> None:
    job = await finish(service, await submit(service, owner))
    [image] = (await service.images.of(job)).stored
    for call in (service.images.find("stranger", image.id), service.images.remove("stranger", image.id)):
        with pytest.raises(ImageNotFound):
            await call


async def test_deleting_image_deletes_its_file(service: Service, owner: ApiKey, stored: ObjectStore) -> None:
    job = await finish(service, await submit(service, owner))
    [image] = (await service.images.of(job)).stored
    await service.images.remove(owner.account_id, image.id)
    assert await service.images.read(image.id) is None
    assert [page async for page in stored.pages() if page] == []


@pytest.mark.parametrize("delivery", list(Delivery))
async def test_only_inline_delivery_reads_files(
    service: Service, owner: ApiKey, engine: FakeEngine, delivery: Delivery
) -> None:
    request = REQUEST.changed(count=2)
    found = await service.images.of(await finish(service, await submit(service, owner, request, delivery=delivery)))
    files = tuple(image.data for image in engine.generate(request).images)
    assert found.files == (() if delivery is Delivery.LINKS else files)


async def test_lost_file_fails_delivery(service: Service, owner: ApiKey, stored: ObjectStore) -> None:
    job = await finish(service, await submit(service, owner, delivery=Delivery.BASE64))
    for name in [name async for page in stored.pages() for name, _ in page]:
        await stored.delete(name)
    with pytest.raises(GenerationFailed, match="was deleted"):
        await service.images.of(job)
