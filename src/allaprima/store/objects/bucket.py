"""An object store in a bucket: S3, Google Cloud Storage or Azure, through obstore.

An object is named by its image's id, so that a put can be repeated. Credentials are read from the environment by
obstore; neither errors nor the log contain what the bucket's server answers, since that may repeat a credential.
"""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any
from uuid import uuid4

from obstore import sign_async
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store, from_url

from allaprima.domain.bucket import BucketAddress
from allaprima.domain.generation import ImageFormat
from allaprima.domain.ports import ObjectStore
from allaprima.errors import ImageStoreUnavailable, SettingsError

logger = logging.getLogger(__name__)

SETTING = "ALLAPRIMA_STORE__BUCKET"
#: Number of objects in one page of a listing.
PAGE = 1000
#: Folder of the images under the address's prefix.
FOLDER = "images"
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
            raise SettingsError(f"{SETTING} can't be used: {_reason(exc)}") from None

    async def put(self, name: str, data: bytes) -> None:
        """See `ObjectStore`; returns after the bucket has confirmed the object. May be repeated."""
        content_type = _CONTENT_TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        try:
            await self._objects.put_async(name, data, attributes={"Content-Type": content_type}, use_multipart=False)
        except BaseError as exc:
            raise _unavailable("write", name, exc) from None

    async def get(self, name: str) -> bytes | None:
        """See `ObjectStore`."""
        try:
            found = await self._objects.get_async(name)
            return bytes(await found.bytes_async())
        except (BaseError, FileNotFoundError) as exc:
            if _is_missing_object(exc):
                return None
            raise _unavailable("read", name, exc) from None

    async def delete(self, name: str) -> None:
        """See `ObjectStore`."""
        try:
            await self._objects.delete_async(name)
        except (BaseError, FileNotFoundError) as exc:
            if not _is_missing_object(exc):
                raise _unavailable("remove", name, exc) from None

    async def pages(self) -> AsyncIterator[list[tuple[str, datetime]]]:
        """See `ObjectStore`; only objects directly in the folder of images."""
        listing = self._objects.list(chunk_size=PAGE)
        try:
            async for page in listing:
                yield [(meta["path"], meta["last_modified"]) for meta in page if "/" not in meta["path"]]
        except (BaseError, FileNotFoundError) as exc:
            raise _unavailable("list", "the bucket", exc) from None

    def owns(self, name: str) -> bool:
        """See `ObjectStore`: whether the name is an image id and an extension."""
        return _NAME.fullmatch(name) is not None

    async def signed_url(self, name: str, seconds: float) -> str | None:
        """See `ObjectStore`."""
        try:
            return await sign_async(self._objects, "GET", name, timedelta(seconds=seconds))
        except BaseError as exc:
            raise _unavailable("sign a link to", name, exc) from None

    async def check(self) -> float:
        """Put, read, list and delete an object, and read a range of it; return the seconds of one round trip.

        Raises `SettingsError`, which names the setting and what failed.
        """
        # Named as an image, so that the sweep removes what an interrupted check leaves.
        name, data = f"{uuid4()}.check", b"allaprima"
        step = "write"
        try:
            await self._objects.put_async(name, data, use_multipart=False)
            step, began = "read", perf_counter()
            found = bytes(await (await self._objects.get_async(name)).bytes_async())
            took_s = perf_counter() - began
            step = "read a range of"
            part = bytes(await self._objects.get_range_async(name, start=3, end=7))
            step = "list"
            async for _ in self._objects.list(chunk_size=1):
                break
            step = "delete"
            await self._objects.delete_async(name)
        except (BaseError, FileNotFoundError) as exc:
            if step not in ("write", "delete"):
                with suppress(BaseError, FileNotFoundError):
                    await self._objects.delete_async(name)
            raise SettingsError(f"{SETTING}: could not {step} an object in {self._name}: {_reason(exc)}") from None
        if (found, part) != (data, data[3:7]):
            raise SettingsError(f"{SETTING}: {self._name} returned other bytes than were written")
        return took_s

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
    logger.warning("the bucket could not %s %s: %s", action, name, _reason(exc))
    return ImageStoreUnavailable()


def _reason(exc: Exception) -> str:
    """Return what failed, as a clause. The text of the error is searched, and never repeated."""
    text = str(exc)
    reasons = (
        ("NoSuchBucket", "there is no such bucket"),
        ("InvalidAccessKeyId", "the access key is unknown; see AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "the secret key is wrong; see AWS_SECRET_ACCESS_KEY"),
        ("AccessDenied", "the credentials lack the permission"),
        ("169.254.169.254", "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("dns error", "its host name is unknown"),
        ("Connection refused", "nothing answers at its address"),
        ("onnect", "its address can't be reached"),
        ("timed out", "it did not answer in time"),
        ("allow_http", "its endpoint needs https"),
    )
    for part, reason in reasons:
        if part in text:
            return reason
    if isinstance(exc, UnauthenticatedError):
        return "the credentials are invalid"
    if isinstance(exc, PermissionDeniedError):
        return "the credentials are invalid or lack the permission"
    if isinstance(exc, NotFoundError | FileNotFoundError):
        return "there is no such bucket"
    return "its server failed"
