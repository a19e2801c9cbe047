"""An object store in a bucket: S3, Google Cloud Storage or Azure, through obstore.

An object is named by its image's id, so that a put can be repeated. Credentials are read from the environment by
obstore; neither errors nor the log contain what the bucket's server answers, since that may repeat a credential.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any, NamedTuple
from uuid import uuid4

from obstore import sign_async
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store, from_url

from allaprima.domain.bucket import BucketAddress
from allaprima.domain.generation import ImageFormat
from allaprima.domain.ports import ObjectStore
from allaprima.errors import Error, ImageStoreUnavailable, SettingsError

logger = logging.getLogger(__name__)

SETTING = "ALLAPRIMA_STORE__BUCKET"
#: Number of objects in one page of a listing.
PAGE = 1000
#: Folder of the images under the address's prefix.
FOLDER = "images"
#: Longest time of the check, in seconds; a bucket that takes longer is away.
CHECK_S = 10.0
#: What obstore raises: some of its errors, such as that of a missing bucket, are built-in ones.
FAILURES = (BaseError, OSError)
#: Bounds of one request with obstore's retries. A job whose image can't be stored retries for longer by itself.
_RETRY = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=4),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
}
_CLIENT = {"connect_timeout": timedelta(seconds=3), "timeout": timedelta(seconds=30)}
_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[a-z]+")
_CONTENT_TYPES = {kind.value: kind.content_type for kind in ImageFormat}


class BucketObjectStore(ObjectStore):
    """The objects under a prefix of a bucket."""

    # Many servers may share the bucket, and a listing is paid for.
    orphan_age = timedelta(hours=24)
    orphans_every_s = 86_400.0

    def __init__(self, address: BucketAddress) -> None:
        """Open the bucket without a request. Raises `SettingsError` for an address that obstore can't use."""
        self.address = address
        try:
            self._objects: Any = _open(address)
        except (BaseError, ValueError) as exc:
            raise SettingsError(f"{SETTING} can't be used: {_reason(exc).clause}") from None

    async def put(self, name: str, data: bytes) -> None:
        """See `ObjectStore`; returns after the bucket has confirmed the object. May be repeated."""
        content_type = _CONTENT_TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        try:
            await self._objects.put_async(name, data, attributes={"Content-Type": content_type}, use_multipart=False)
        except FAILURES as exc:
            raise _unavailable("write", name, exc) from None

    async def get(self, name: str) -> bytes | None:
        """See `ObjectStore`."""
        try:
            found = await self._objects.get_async(name)
            return bytes(await found.bytes_async())
        except FAILURES as exc:
            if _is_missing_object(exc):
                return None
            raise _unavailable("read", name, exc) from None

    async def delete(self, name: str) -> None:
        """See `ObjectStore`."""
        try:
            await self._objects.delete_async(name)
        except FAILURES as exc:
            if not _is_missing_object(exc):
                raise _unavailable("remove", name, exc) from None

    async def pages(self) -> AsyncIterator[list[tuple[str, datetime]]]:
        """See `ObjectStore`; only objects directly in the folder of images."""
        listing = self._objects.list(chunk_size=PAGE)
        try:
            async for page in listing:
                yield [(meta["path"], meta["last_modified"]) for meta in page if "/" not in meta["path"]]
        except FAILURES as exc:
            raise _unavailable("list", "the bucket", exc) from None

    async def is_available(self) -> bool:
        """See `ObjectStore`; puts an object and removes it."""
        # Named as an image, so that the sweep removes what an interruption leaves.
        name = f"{uuid4()}.check"
        try:
            await self.put(name, b"allaprima")
        except ImageStoreUnavailable:
            return False
        with suppress(ImageStoreUnavailable):
            await self.delete(name)
        return True

    def owns(self, name: str) -> bool:
        """See `ObjectStore`: whether the name is an image id and an extension."""
        return _NAME.fullmatch(name) is not None

    async def signed_url(self, name: str, seconds: float) -> str | None:
        """See `ObjectStore`."""
        try:
            return await sign_async(self._objects, "GET", name, timedelta(seconds=seconds))
        except FAILURES as exc:
            raise _unavailable("sign a link to", name, exc) from None

    async def check(self) -> float:
        """Put, read, list and delete an object, and read a range of it; return the seconds of one round trip.

        Raises an error that names the setting and what failed: `SettingsError` if the operator must mend it, such as
        wrong credentials, or `ImageStoreUnavailable` if the bucket is away.
        """
        # Named as an image, so that the sweep removes what an interrupted check leaves.
        name, data, steps = f"{uuid4()}.check", b"allaprima", ["write"]
        try:
            async with asyncio.timeout(CHECK_S):
                found, part, took_s = await self._exercise(name, data, steps)
        except FAILURES as exc:
            if steps[-1] not in ("write", "delete") and not isinstance(exc, TimeoutError):
                with suppress(*FAILURES):
                    await self._objects.delete_async(name)
            raise self._refusal(steps[-1], exc) from None
        if (found, part) != (data, data[3:7]):
            raise SettingsError(f"{SETTING}: {self._name} returned other bytes than were written")
        return took_s

    async def _exercise(self, name: str, data: bytes, steps: list[str]) -> tuple[bytes, bytes, float]:
        """Use the bucket in every way; return the object, a range of it, and the seconds of reading.

        steps: what is being done is appended to it.
        """
        await self._objects.put_async(name, data, use_multipart=False)
        steps.append("read")
        began = perf_counter()
        found = bytes(await (await self._objects.get_async(name)).bytes_async())
        took_s = perf_counter() - began
        steps.append("read a range of")
        part = bytes(await self._objects.get_range_async(name, start=3, end=7))
        steps.append("list")
        async for _ in self._objects.list(chunk_size=1):
            break
        steps.append("delete")
        await self._objects.delete_async(name)
        return found, part, took_s

    def _refusal(self, step: str, exc: Exception) -> Error:
        reason = _reason(exc)
        message = f"{SETTING}: could not {step} an object in {self._name}: {reason.clause}"
        return SettingsError(message) if reason.is_lasting else ImageStoreUnavailable(message)

    @property
    def _name(self) -> str:
        where = f" at {self.address.endpoint}" if self.address.endpoint else ""
        return f"the bucket {self.address.bucket}{where}"


def _open(address: BucketAddress) -> Any:
    prefix = f"{address.prefix}/{FOLDER}".lstrip("/")
    options: dict[str, Any] = {"retry_config": _RETRY, "client_options": dict(_CLIENT)}
    if address.scheme != "s3":
        return from_url(f"{address.scheme}://{address.bucket}/{prefix}", **options)
    if address.endpoint is not None:
        options["endpoint"] = address.endpoint
        options["client_options"]["allow_http"] = address.endpoint.startswith("http://")
    if address.region is not None:
        options["region"] = address.region
    return S3Store(address.bucket, prefix=prefix, **options)


def _is_missing_object(exc: Exception) -> bool:
    return isinstance(exc, NotFoundError | FileNotFoundError) and "NoSuchBucket" not in str(exc)


def _unavailable(action: str, name: str, exc: Exception) -> ImageStoreUnavailable:
    logger.warning("the bucket could not %s %s: %s", action, name, _reason(exc).clause)
    return ImageStoreUnavailable()


class _Reason(NamedTuple):
    """Why a request to the bucket failed."""

    #: A clause.
    clause: str
    #: Whether only the operator can mend it; otherwise the bucket is away, and may answer later.
    is_lasting: bool


#: Reasons by a part of the text of obstore's error, which is searched, and never repeated. The first that fits counts.
_REASONS = (
    ("NoSuchBucket", _Reason("there is no such bucket", is_lasting=True)),
    ("InvalidAccessKeyId", _Reason("the access key is unknown; see AWS_ACCESS_KEY_ID", is_lasting=True)),
    ("SignatureDoesNotMatch", _Reason("the secret key is wrong; see AWS_SECRET_ACCESS_KEY", is_lasting=True)),
    ("ExpiredToken", _Reason("the session token has expired; see AWS_SESSION_TOKEN", is_lasting=True)),
    ("RequestTimeTooSkewed", _Reason("the clock of this machine is wrong", is_lasting=True)),
    ("QuotaExceeded", _Reason("the quota of the bucket is used up", is_lasting=False)),
    ("AccessDenied", _Reason("the credentials lack the permission", is_lasting=True)),
    (
        "169.254.169.254",
        _Reason("no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", is_lasting=True),
    ),
    ("configured region", _Reason("its region is another; see region= in the setting", is_lasting=True)),
    ("AuthorizationHeaderMalformed", _Reason("its region is another; see region= in the setting", is_lasting=True)),
    ("Temporary failure in name resolution", _Reason("its host name can't be looked up now", is_lasting=False)),
    ("dns error", _Reason("its host name is unknown", is_lasting=True)),
    ("peer certificate", _Reason("its certificate is not trusted by this machine", is_lasting=True)),
    ("InvalidContentType", _Reason("its endpoint does not speak https", is_lasting=True)),
    ("allow_http", _Reason("its endpoint needs https", is_lasting=True)),
    ("Connection refused", _Reason("nothing answers at its address", is_lasting=False)),
    ("onnect", _Reason("its address can't be reached", is_lasting=False)),
    ("imedOut", _Reason("it did not answer in time", is_lasting=False)),
    ("status code: 429", _Reason("its server refuses so many requests", is_lasting=False)),
)
#: Reasons by a kind of error, where its text names none.
_REASONS_OF_KINDS: tuple[tuple[type[Exception], _Reason], ...] = (
    (TimeoutError, _Reason("it did not answer in time", is_lasting=False)),
    (UnauthenticatedError, _Reason("the credentials are invalid", is_lasting=True)),
    (PermissionDeniedError, _Reason("the credentials are invalid or lack the permission", is_lasting=True)),
    (NotFoundError, _Reason("there is no such bucket", is_lasting=True)),
    (FileNotFoundError, _Reason("there is no such bucket", is_lasting=True)),
)


def _reason(exc: Exception) -> _Reason:
    """Return why a request failed."""
    text = str(exc)
    for part, reason in _REASONS:
        if part in text:
            return reason
    for kind, reason in _REASONS_OF_KINDS:
        if isinstance(exc, kind):
            return reason
    if "status code: 4" in text:
        return _Reason("its server refuses the request", is_lasting=True)
    return _Reason("its server failed", is_lasting=False)
