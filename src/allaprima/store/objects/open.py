"""Settings to the object store of the images: the data folder's, or a bucket."""

from typing import TYPE_CHECKING

from allaprima.domain.bucket import parse_bucket
from allaprima.domain.ports import ObjectStore
from allaprima.store.data_folder import IMAGES_FOLDER
from allaprima.store.objects.local import LocalObjectStore

if TYPE_CHECKING:
    from allaprima.settings import StoreSettings


async def open_objects(settings: "StoreSettings") -> ObjectStore:
    """Return the configured object store; a bucket is checked by writing, reading and deleting an object.

    Raises `StoreError` for a folder and `SettingsError` for a bucket that can't be used.
    """
    if settings.bucket is None:
        return LocalObjectStore(settings.data_dir / IMAGES_FOLDER, is_shared=settings.database_url is not None)
    from allaprima.store.objects.bucket import BucketObjectStore

    objects = BucketObjectStore(parse_bucket(settings.bucket))
    await objects.check()
    return objects
