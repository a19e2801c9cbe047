"""Erases an account: its prompts, images and logs. Its sums, its ledger and its keys' names stay for bookkeeping."""

from collections.abc import Awaitable, Callable

from allaprima.domain.accounts import Account
from allaprima.domain.clock import Clock
from allaprima.domain.erasure import Erased
from allaprima.errors import Conflict
from allaprima.store.erasure import ErasureRepository
from allaprima.store.images import ImageRepository

#: Jobs that one transaction removes, so that it delays no other for long.
JOBS_AT_ONCE = 200

#: Cancels the unfinished jobs of an account, by its id.
CancelJobs = Callable[[str], Awaitable[object]]


class Erasure:
    """Erases accounts. An erasure that failed is continued by the next one."""

    def __init__(
        self, records: ErasureRepository, images: ImageRepository, cancel_jobs: CancelJobs, clock: Clock
    ) -> None:
        self._records = records
        self._images = images
        self._cancel_jobs = cancel_jobs
        self._clock = clock

    async def erase(self, account: Account) -> Erased:
        """Disable an account's keys, cancel its jobs, and remove what its requests left; return what was removed.

        Raises `Conflict` if the engine has not stopped a job yet, and `StoreError`.
        """
        # From here on no request of the account is accepted, not even one that was authenticated before.
        keys = await self._records.disable_keys(account.id, self._clock())
        await self._cancel_jobs(account.id)
        await self._require_no_unfinished(account)
        before = await self._records.holdings(account.id)
        removed = JOBS_AT_ONCE
        while removed == JOBS_AT_ONCE:
            removed, files = await self._records.remove_jobs(account.id, JOBS_AT_ONCE)
            await self._images.remove_files(files)
        await self._records.remove_rest(account.id)
        await self._records.compact()
        return Erased(
            keys_disabled=keys,
            jobs=before.jobs,
            images=before.images,
            image_bytes=before.image_bytes,
            logged_requests=before.logged_requests,
            idempotency_records=before.idempotency_records,
            webhook_endpoints=before.webhook_endpoints,
            ledger_entries=before.ledger_entries,
            usage_sums=before.usage_sums,
        )

    async def _require_no_unfinished(self, account: Account) -> None:
        if left := await self._records.count_unfinished(account.id):
            jobs = "a cancelled job has" if left == 1 else f"{left} cancelled jobs have"
            raise Conflict(
                f"{jobs} not ended yet, so the account {account.name[:80]} is not erased; its keys are disabled, so "
                "repeat the command in a few seconds, while a server runs that ends them"
            )
