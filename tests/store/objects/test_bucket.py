"""The object store in a bucket: refusals in words, foreign objects, content types, and signed URLs."""

import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from allaprima.domain.bucket import parse_bucket
from allaprima.errors import ImageStoreUnavailable, SettingsError
from allaprima.store.objects.bucket import BucketObjectStore
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


class NoSuchBucket(BaseHTTPRequestHandler):
    """Answers every request as S3 does for a missing bucket. SeaweedFS creates missing buckets instead."""

    def do_GET(self) -> None:
        """Answer 404."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b"<Error><Code>NoSuchBucket</Code><Message>The bucket does not exist</Message></Error>"
        self.send_response(404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET  # noqa: N815 - the names of the library

    def log_message(self, *_: object) -> None:
        """Log nothing."""


async def test_missing_bucket_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    server = ThreadingHTTPServer(("127.0.0.1", 0), NoSuchBucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        missing = BucketObjectStore(parse_bucket(f"s3://missing?endpoint={endpoint}&region=eu"))
        with pytest.raises(SettingsError, match=r"the bucket missing at .*: there is no such bucket"):
            await missing.check()
        # A missing bucket is not a missing image.
        with pytest.raises(ImageStoreUnavailable):
            await missing.get(OURS)
    finally:
        server.shutdown()
        server.server_close()


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
