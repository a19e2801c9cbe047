"""Which running jobs were cancelled, and what their cancellation stops."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from allaprima.errors import Cancelled

T = TypeVar("T")


class CancelledJobs:
    """Ids of jobs whose cancellation was requested."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        #: What a cancellation stops, by job id.
        self._work: dict[str, asyncio.Task[Any]] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._ids

    def add(self, job_id: str) -> None:
        """Add a job, and stop its work that may be stopped."""
        self._ids.add(job_id)
        if job_id in self._work:
            self._work[job_id].cancel()

    def discard(self, job_id: str) -> None:
        """Remove a job, if it is there."""
        self._ids.discard(job_id)

    async def stopping(self, job_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Await work of a job that its cancellation stops. Raises `Cancelled`, at once, if the job is cancelled."""
        task = self._work[job_id] = asyncio.create_task(work)
        try:
            if job_id in self._ids:
                task.cancel()
            return await task
        except asyncio.CancelledError:
            if job_id in self._ids:
                raise Cancelled from None
            raise
        finally:
            del self._work[job_id]
