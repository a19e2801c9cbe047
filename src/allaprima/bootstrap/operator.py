"""Settings to the operator's part of the service: accounts and keys, without the imports of the rest."""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from allaprima.domain.accounts import Account
from allaprima.domain.clock import Clock
from allaprima.domain.database_url import place_of
from allaprima.domain.erasure import Erased
from allaprima.domain.postgres_report import PostgresReport
from allaprima.errors import JobFinished, JobNotFound, SettingsError
from allaprima.service.accounts.accounts import AccountService
from allaprima.service.accounts.erasure import CancelJobs, Erasure
from allaprima.service.accounts.keys import ApiKeyService
from allaprima.service.operator import OperatorService
from allaprima.settings import Settings, StoreSettings
from allaprima.store.accounts import AccountRepository
from allaprima.store.data_folder import DATABASE_FILE, IMAGES_FOLDER
from allaprima.store.database import Database
from allaprima.store.erasure import ErasureRepository
from allaprima.store.images import ImageRepository
from allaprima.store.job_transitions import JobTransitions
from allaprima.store.jobs import JobRepository
from allaprima.store.keys import KeyRepository
from allaprima.store.migrations import HEAD
from allaprima.store.open import open_database, require_driver, upgrade_database


@asynccontextmanager
async def open_operator(settings: Settings, *, clock: Clock = time.time) -> AsyncIterator[OperatorService]:
    """Open the database for its accounts and keys alone, without an engine.

    Raises `StoreError`, and `StoreLocked` when a server holds the data folder; PostgreSQL serves several processes.
    """
    database = await open_database(settings.store)

    async def erase(account: Account) -> Erased:
        # Imported here because the other commands open no image files.
        from allaprima.store.objects.open import open_objects

        if database.is_shared and settings.store.bucket is None:
            _require_images(settings.store.data_dir / IMAGES_FOLDER)
        images = ImageRepository(database, await open_objects(settings.store))
        cancel = _cancel_jobs(database, clock)
        return await Erasure(ErasureRepository(database), images, cancel, clock).erase(account)

    try:
        yield operator_service(database, clock, erase, makes_first_account=not database.is_shared)
    finally:
        await database.close()


def _require_images(folder: Path) -> None:
    """Raise `SettingsError` unless the folder of the images exists; else an erasure would leave the files."""
    if not folder.is_dir():
        raise SettingsError(
            f"there is no folder {folder.absolute()}, so the images of the account can't be removed; name the servers' "
            "data folder with --data-dir, or their bucket with ALLAPRIMA_STORE__BUCKET"
        )


def _cancel_jobs(database: Database, clock: Clock) -> CancelJobs:
    """Return the function that cancels the jobs of an account; on a shared database servers may run some of them."""
    transitions, jobs = JobTransitions(database), JobRepository(database)

    async def cancel_all(account_id: str) -> None:
        # The lock of the folder keeps servers out, so no job runs.
        await transitions.cancel_all(account_id, clock())

    async def ask_servers(account_id: str) -> None:
        for job in await jobs.unfinished_of_account(account_id):
            # A job may end or be deleted meanwhile.
            with suppress(JobNotFound, JobFinished):
                await transitions.request_cancel(job.id, clock())

    return ask_servers if database.is_shared else cancel_all


def has_data(folder: Path) -> bool:
    """Whether a path has data of a server, or is no folder that one could create there."""
    return folder.exists() and (not folder.is_dir() or (folder / DATABASE_FILE).exists())


@dataclass(frozen=True, slots=True)
class Migration:
    """What a migration did. place: the database, without its password. before: its schema; None: it was empty."""

    place: str
    before: str | None
    after: str


async def migrate(settings: Settings) -> Migration:
    """Upgrade the schema of the configured database. Raises `StoreError`, and `SettingsError` for a missing folder."""
    store = settings.store
    if store.database_url is not None:
        place = place_of(store.database_url.get_secret_value())
    else:
        require_data(store.data_dir)
        place = str((store.data_dir / DATABASE_FILE).absolute())
    return Migration(place, await upgrade_database(store), HEAD)


def require_data(folder: Path) -> None:
    """Raise `SettingsError` if a path has no data of a server, and one could create a folder there."""
    if not has_data(folder):
        raise SettingsError(f"there is no data folder in {folder.absolute()}; name the server's with --data-dir")


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


def report_database(settings: StoreSettings) -> PostgresReport:
    """Look at the configured PostgreSQL database. Raises `StoreError` or `SettingsError` if it can't be reached."""
    require_driver()
    from allaprima.store.postgres_report import report

    assert settings.database_url is not None
    return report(settings.database_url.get_secret_value(), is_pooled=settings.pooled)


async def check_bucket(url: str) -> float:
    """Put, read, list and delete an object in a bucket; return the seconds of one round trip.

    url: as in the settings. Raises `SettingsError`, which names what failed.
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
    makes_first_account: bool = True,
) -> OperatorService:
    """Return the operator's use cases on an open database.

    erase: erases an account. is_single_account: whether no further account can be created. makes_first_account: whether
    a key that names no account makes the first one.
    """
    accounts = AccountRepository(database)
    return OperatorService(
        accounts=AccountService(accounts, clock, is_single=is_single_account),
        keys=ApiKeyService(KeyRepository(database), accounts, clock, makes_first_account=makes_first_account),
        account_records=accounts,
        erase=erase,
    )
