"""Settings to the operator's part of the service: accounts and keys, without the imports of the rest."""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from allaprima.domain.accounts import Account
from allaprima.domain.clock import Clock
from allaprima.domain.erasure import Erased
from allaprima.service.accounts.accounts import AccountService
from allaprima.service.accounts.erasure import Erasure
from allaprima.service.accounts.keys import ApiKeyService
from allaprima.service.operator import OperatorService
from allaprima.settings import Settings
from allaprima.store.accounts import AccountRepository
from allaprima.store.data_folder import DATABASE_FILE, IMAGES_FOLDER
from allaprima.store.database import Database
from allaprima.store.erasure import ErasureRepository
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.keys import KeyRepository
from allaprima.store.sqlite import open_sqlite


@asynccontextmanager
async def open_operator(settings: Settings, *, clock: Clock = time.time) -> AsyncIterator[OperatorService]:
    """Open the data folder for its accounts and keys alone, without an engine.

    Raises `StoreLocked` when a server holds it.
    """
    folder = settings.store.data_dir
    database = await open_sqlite(folder)

    async def erase(account: Account) -> Erased:
        # Imported here because the other commands open no image files.
        from allaprima.store.objects.open import open_objects

        images = ImageRepository(database, await open_objects(settings.store))
        transitions = JobTransitions(database)
        # The lock of the folder keeps servers out, so no job runs.
        erasure = Erasure(
            ErasureRepository(database), images, lambda account_id: transitions.cancel_all(account_id, clock()), clock
        )
        return await erasure.erase(account)

    try:
        yield operator_service(database, clock, erase)
    finally:
        await database.close()


def has_data(folder: Path) -> bool:
    """Whether a path has data of a server, or is no folder that one could create there."""
    return folder.exists() and (not folder.is_dir() or (folder / DATABASE_FILE).exists())


def stored_bytes(folder: Path) -> int:
    """Return the bytes of the image files in a data folder, which a server may use; 0 if there is none.

    Raises OSError if the folder can't be read.
    """
    size = 0
    with suppress(FileNotFoundError), os.scandir(folder / IMAGES_FOLDER) as files:
        for file in files:
            # The server may remove files meanwhile.
            with suppress(FileNotFoundError):
                size += file.stat().st_size
    return size


async def check_bucket(url: str) -> float:
    """Put, read, list and delete an object in a bucket; return the seconds of one round trip.

    url: as in the settings. Raises `SettingsError` or `ImageStoreUnavailable`, which name what failed.
    """
    from allaprima.domain.bucket import parse_bucket
    from allaprima.store.objects.bucket import BucketObjectStore

    return await BucketObjectStore(parse_bucket(url)).check()


def operator_service(
    database: Database,
    clock: Clock,
    erase: Callable[[Account], Awaitable[Erased]],
    *,
    is_single_account: bool = False,
) -> OperatorService:
    """Return the operator's use cases on an open database.

    erase: erases an account. is_single_account: whether no further account can be created.
    """
    accounts = AccountRepository(database)
    return OperatorService(
        accounts=AccountService(accounts, clock, is_single=is_single_account),
        keys=ApiKeyService(KeyRepository(database), accounts, clock),
        account_records=accounts,
        erase=erase,
    )
