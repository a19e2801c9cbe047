"""The object store in a bucket: refusals in words, foreign objects, content types, and signed URLs."""

import socket
from datetime import timedelta

import httpx2
import pytest

from allaprima.domain.bucket import parse_bucket
from allaprima.errors import Error, ImageStoreUnavailable, SettingsError
from allaprima.store.objects import bucket
from allaprima.store.objects.bucket import BucketObjectStore
from tests.fake_s3 import bucket_that_answers
from tests.seaweed import CREDENTIALS, READER, Seaweed

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


@pytest.fixture
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bucket._RETRY, "max_retries", 0)


@pytest.mark.usefixtures("_credentials")
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        # SeaweedFS creates missing buckets.
        (404, "NoSuchBucket", "there is no such bucket"),
        (403, "Forbidden", "the credentials are invalid or lack the permission"),
        (403, "RequestTimeTooSkewed", "the clock of this machine is wrong"),
        (400, "ExpiredToken", "the session token has expired; see AWS_SESSION_TOKEN"),
        (400, "AuthorizationHeaderMalformed", "its region is another; see region= in the setting"),
        (301, "PermanentRedirect", "its region is another; see region= in the setting"),
        (405, "MethodNotAllowed", "its server refuses the request"),
    ],
)
async def test_what_the_operator_must_mend_is_refused_by_name(status: int, code: str, reason: str) -> None:
    with bucket_that_answers(status, code) as objects, pytest.raises(SettingsError) as refused:
        await objects.check()
    where = f"the bucket photos at {objects.address.endpoint}"
    assert refused.value.message == f"ALLAPRIMA_STORE__BUCKET: could not write an object in {where}: {reason}"


@pytest.mark.usefixtures("_credentials", "_no_retries")
@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (500, "InternalError", "its server failed"),
        (503, "SlowDown", "its server failed"),
        (429, "TooManyRequests", "its server refuses so many requests"),
        (403, "QuotaExceeded", "the quota of the bucket is used up"),
    ],
)
async def test_bucket_that_may_answer_later_is_away(status: int, code: str, reason: str) -> None:
    with bucket_that_answers(status, code) as objects, pytest.raises(ImageStoreUnavailable) as away:
        await objects.check()
    assert away.value.message.endswith(f"at {objects.address.endpoint}: {reason}")
    assert away.value.message.startswith("ALLAPRIMA_STORE__BUCKET: ")


@pytest.mark.usefixtures("_credentials")
async def test_missing_bucket_is_not_a_missing_image() -> None:
    with bucket_that_answers(404, "NoSuchBucket") as missing, pytest.raises(ImageStoreUnavailable):
        await missing.get(OURS)


@pytest.mark.usefixtures("_credentials")
async def test_bucket_that_does_not_answer_is_away_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "CHECK_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        objects = BucketObjectStore(parse_bucket(f"s3://photos?endpoint={endpoint}&region=eu"))
        with pytest.raises(ImageStoreUnavailable, match="it did not answer in time"):
            await objects.check()


@pytest.mark.usefixtures("_no_retries")
@pytest.mark.parametrize(
    ("endpoint", "kind", "reason"),
    [
        ("http://127.0.0.1:9", ImageStoreUnavailable, r"at http://127\.0\.0\.1:9: nothing answers"),
        ("http://no-such-host.invalid", SettingsError | ImageStoreUnavailable, "its host name"),
    ],
)
async def test_wrong_endpoint_is_named(
    seaweed: Seaweed, bucket_url: str, endpoint: str, kind: type[Error], reason: str
) -> None:
    url = bucket_url.replace(seaweed.endpoint, endpoint)
    with pytest.raises(Error, match=reason) as refused:
        await BucketObjectStore(parse_bucket(url)).check()
    assert isinstance(refused.value, kind)


@pytest.mark.usefixtures("_no_retries")
async def test_endpoint_without_https_is_refused(seaweed: Seaweed, bucket_url: str) -> None:
    url = bucket_url.replace(seaweed.endpoint, seaweed.endpoint.replace("http:", "https:"))
    with pytest.raises(SettingsError, match="its endpoint does not speak https"):
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


@pytest.mark.usefixtures("_credentials", "_no_retries")
async def test_bucket_that_takes_an_object_is_available(objects: BucketObjectStore) -> None:
    assert await objects.is_available()
    assert [page async for page in objects.pages() if page] == []
    for status, code in ((503, "SlowDown"), (403, "AccessDenied"), (404, "NoSuchBucket")):
        with bucket_that_answers(status, code) as away:
            assert not await away.is_available()
