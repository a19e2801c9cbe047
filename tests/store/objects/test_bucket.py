"""The object store in a bucket: refusals in words, foreign objects, content types, and signed URLs."""

from datetime import timedelta

import httpx2
import pytest

from allaprima.domain.bucket import parse_bucket
from allaprima.errors import ImageStoreUnavailable, SettingsError
from allaprima.store.objects.bucket import BucketObjectStore
from tests.seaweed import CREDENTIALS, READER, WRITER, Seaweed

OURS = "0199aa00-0000-7000-8000-000000000000.webp"


@pytest.fixture
def objects(bucket_url: str) -> BucketObjectStore:
    return BucketObjectStore(parse_bucket(bucket_url))


async def test_check_returns_round_trip_and_leaves_nothing(objects: BucketObjectStore) -> None:
    assert 0 < await objects.check() < 5
    assert [page async for page in objects.pages() if page] == []


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (CREDENTIALS | {"AWS_ACCESS_KEY_ID": "unknown"}, "the access key is unknown; see AWS_ACCESS_KEY_ID"),
        (CREDENTIALS | {"AWS_SECRET_ACCESS_KEY": "wrong"}, "the secret key is wrong; see AWS_SECRET_ACCESS_KEY"),
        (READER, "could not write .* the credentials lack the permission"),
    ],
)
async def test_wrong_credentials_are_refused_without_secrets(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^ALLAPRIMA_STORE__BUCKET: .*{reason}") as refused:
        await BucketObjectStore(parse_bucket(bucket_url)).check()
    assert variables["AWS_SECRET_ACCESS_KEY"] not in refused.value.message.replace("secret key is wrong", "")


async def test_missing_bucket_is_refused_by_name(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WRITER.items():
        monkeypatch.setenv(name, value)
    missing = BucketObjectStore(parse_bucket(bucket_url.replace("//images/", "//no-such-bucket/")))
    with pytest.raises(SettingsError, match="no-such-bucket .*: there is no such bucket"):
        await missing.check()
    # A missing bucket is no missing image.
    with pytest.raises(ImageStoreUnavailable):
        await missing.get(OURS)


async def test_wrong_endpoint_is_refused(seaweed: Seaweed, bucket_url: str) -> None:
    url = bucket_url.replace(seaweed.endpoint, "http://127.0.0.1:9")
    with pytest.raises(SettingsError, match=r"at http://127\.0\.0\.1:9: nothing answers"):
        await BucketObjectStore(parse_bucket(url)).check()


async def test_only_objects_named_as_images_are_owned(seaweed: Seaweed, bucket_url: str) -> None:
    ours, other = (BucketObjectStore(parse_bucket(seaweed.address(prefix))) for prefix in ("a", "ab"))
    await other.put(OURS, b"image")
    await ours.put("notes.txt", b"foreign")
    await ours.put(f"folder/{OURS}", b"foreign")
    assert [name async for page in ours.pages() for name, _ in page] == ["notes.txt"]
    assert not ours.owns("notes.txt")
    assert not ours.owns("logo.png")
    assert ours.owns(OURS)


async def test_signed_url_returns_object_with_content_type(objects: BucketObjectStore) -> None:
    await objects.put(OURS, b"image")
    url = await objects.signed_url(OURS, timedelta(minutes=1).total_seconds())
    assert url is not None
    assert "X-Amz-Expires=60" in url
    answer = httpx2.get(url)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"image", "image/webp")
    assert httpx2.get(url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000")).status_code == 403
