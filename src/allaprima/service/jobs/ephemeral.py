"""Results of jobs with `store=false`, on their way from the runner to a response of the same process."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from allaprima.domain.generation import GenerationResult
from allaprima.domain.jobs import Job
from allaprima.domain.ports import Delivery, EphemeralResult, EphemeralResults

#: Seconds without progress after which a delivery has failed.
DELIVERY_TIMEOUT_S = 10.0


class MemoryEphemeralResults(EphemeralResults):
    """The deliveries of this process, by job id."""

    def __init__(self, timeout_s: float = DELIVERY_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._deliveries: dict[str, _MemoryDelivery] = {}

    def __len__(self) -> int:
        """Return the number of deliveries that have not ended."""
        return len(self._deliveries)

    def delivery(self, job_id: str) -> Delivery:
        """See `EphemeralResults`."""
        return self._delivery(job_id)

    @asynccontextmanager
    async def offer(self, job: Job, result: GenerationResult) -> AsyncIterator[bool]:
        """See `EphemeralResults`."""
        delivery = self._delivery(job.id)
        delivery.offer(EphemeralResult(job, result))
        try:
            yield await delivery.is_delivered(self._timeout_s)
        finally:
            delivery.end()

    def abandon(self, job_id: str) -> None:
        """See `EphemeralResults`."""
        if delivery := self._deliveries.get(job_id):
            delivery.abandon()

    def _delivery(self, job_id: str) -> "_MemoryDelivery":
        if job_id not in self._deliveries:
            self._deliveries[job_id] = _MemoryDelivery(lambda: self._deliveries.pop(job_id, None))
        return self._deliveries[job_id]


class _MemoryDelivery(Delivery):
    """Connects the runner and the response by futures of their event loop."""

    def __init__(self, forget: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        self._forget = forget
        self._result: asyncio.Future[EphemeralResult] = loop.create_future()
        self._delivered: asyncio.Future[bool] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._progress_at = time.monotonic()

    @property
    def result(self) -> asyncio.Future[EphemeralResult]:
        return self._result

    def progress(self) -> bool:
        self._progress_at = time.monotonic()
        return not self._ended.done()

    async def confirm(self) -> None:
        if not self._delivered.done():
            self._delivered.set_result(True)
        await asyncio.shield(self._ended)

    def abandon(self) -> None:
        if not self._delivered.done():
            self._delivered.set_result(False)
        self._forget()

    def offer(self, result: EphemeralResult) -> None:
        """Give the result to the response."""
        self._progress_at = time.monotonic()
        if not self._result.done():
            self._result.set_result(result)

    async def is_delivered(self, timeout_s: float) -> bool:
        """Wait for the end of the delivery; False also after `timeout_s` seconds without progress."""
        while not self._delivered.done():
            left = self._progress_at + timeout_s - time.monotonic()
            if left <= 0:
                return False
            await asyncio.wait((self._delivered,), timeout=left)
        return self._delivered.result()

    def end(self) -> None:
        """Report that the job has ended."""
        if not self._ended.done():
            self._ended.set_result(None)
        self._forget()
