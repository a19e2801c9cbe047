"""Settings to the object store of the images: the data folder's, or a bucket."""

import logging
from typing import TYPE_CHECKING

from allaprima.domain.bucket import parse_bucket
from allaprima.domain.ports import ObjectStore
from allaprima.errors import ImageStoreUnavailable
from allaprima.store.data_folder import IMAGES_FOLDER
from allaprima.store.objects.local import LocalObjectStore

if TYPE_CHECKING:
    from allaprima.settings import StoreSettings


logger = logging.getLogger(__name__)


async def open_objects(settings: "StoreSettings", *, may_be_away: bool = False) -> ObjectStore:
    """Return the configured object store; a bucket is checked by writing, reading and deleting an object.

    may_be_away: whether a bucket that does not answer now is returned too, with a warning in the log. Raises
    `StoreError` for a folder and `SettingsError` for a bucket that can't be used, and `ImageStoreUnavailable`.
    """
    if settings.bucket is None:
        return LocalObjectStore(settings.data_dir / IMAGES_FOLDER, is_shared=settings.database_url is not None)
    from allaprima.store.objects.bucket import BucketObjectStore

    objects = BucketObjectStore(parse_bucket(settings.bucket))
    try:
        await objects.check()
    except ImageStoreUnavailable as exc:
        if not may_be_away:
            raise
        logger.warning("%s; images wait until the bucket answers", exc.message)
    return objects
