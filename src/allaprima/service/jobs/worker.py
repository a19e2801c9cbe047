"""The worker of this process: its registration, its heartbeats, and its leases of jobs."""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from uuid_utils import uuid7

from allaprima import __version__
from allaprima.domain.clock import Clocks
from allaprima.domain.workers import Heartbeat, WorkerRecord
from allaprima.errors import StoreError
from allaprima.service.jobs.runner import JobRunner
from allaprima.service.lifecycle import Lifecycle
from allaprima.store.job_transitions import JobTransitions, LeaseOutcome
from allaprima.store.workers import LEASE_S, WorkerRepository

logger = logging.getLogger(__name__)

#: Seconds between two heartbeats.
HEARTBEAT_S = LEASE_S / 3


class Worker:
    """A registered worker. While its heartbeats reach the database, its jobs are its own."""

    def __init__(
        self,
        workers: WorkerRepository,
        transitions: JobTransitions,
        runner: JobRunner,
        lifecycle: Lifecycle,
        clocks: Clocks,
        concurrency: int,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        """concurrency: how many jobs the engine generates at a time. heartbeat_s: seconds between two heartbeats."""
        self._workers = workers
        self._transitions = transitions
        self._runner = runner
        self._lifecycle = lifecycle
        self._clock, self._monotonic = clocks
        self._concurrency = concurrency
        self._heartbeat_s = heartbeat_s
        self._id = ""
        #: Monotonic time since which every heartbeat reached the database; None: the last one did not.
        self._in_contact_since: float | None = None
        self._is_leasing = False
        #: Leased jobs that the last heartbeat found and that were not at hand.
        self._missing: frozenset[str] = frozenset()
        self._stopped = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def id(self) -> str:
        """The id under which the worker is registered."""
        return self._id

    @property
    def is_in_contact(self) -> bool:
        """Whether every heartbeat of a whole lease reached the database, so that missing ones of others mean death."""
        since = self._in_contact_since
        return since is not None and self._monotonic() - since > LEASE_S

    @asynccontextmanager
    async def registered(self) -> AsyncIterator[None]:
        """Be registered until the context exits; the worker's jobs must have ended or been requeued by then."""
        await self._register()
        loop = asyncio.get_running_loop()
        # In a thread, so that a busy event loop does not make the worker a dead one.
        heartbeats = threading.Thread(target=self._send_heartbeats, args=(loop,), name="heartbeats", daemon=True)
        heartbeats.start()
        try:
            yield
        finally:
            self._stopped.set()
            # The last heartbeat may wait for a database that is away.
            await asyncio.to_thread(heartbeats.join, HEARTBEAT_S)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # Otherwise the lease ends by itself.
            with suppress(StoreError):
                await self._workers.remove(self._id)

    async def lease(self) -> LeaseOutcome:
        """Lease the next job of the queue to this worker. Raises `StoreError`."""
        self._is_leasing = True
        try:
            outcome = await self._transitions.lease(self._id, self._clock())
            if outcome.is_registered:
                return outcome
            await self._register_again(self._id)
            return await self._transitions.lease(self._id, self._clock())
        finally:
            self._is_leasing = False

    async def _register(self) -> None:
        # A new id each time: under the old one, jobs that were taken from the worker would count as its own.
        worker_id = str(uuid7())
        name = f"{socket.gethostname()}:{os.getpid()}"
        await self._workers.register(WorkerRecord(worker_id, name, __version__, self._concurrency))
        self._id = worker_id
        self._in_contact_since = self._monotonic()

    async def _register_again(self, dead_id: str) -> None:
        """Register under a new id, unless the lease of the old one is over and no other worker has removed it."""
        if self._id != dead_id or (await asyncio.to_thread(self._workers.renew, dead_id)).is_registered:
            return
        if self._id == dead_id:
            logger.warning("this worker was taken for dead and its jobs were requeued; it registers again")
            await self._register()

    def _send_heartbeats(self, loop: asyncio.AbstractEventLoop) -> None:
        last = self._monotonic()
        while not self._stopped.wait(self._heartbeat_s):
            worker_id = self._id
            heartbeat = None
            # The store has logged the error; the next heartbeat may reach it.
            with suppress(StoreError):
                heartbeat = self._workers.renew(worker_id)
            # An outage that one heartbeat has waited for breaks the contact, too.
            now = self._monotonic()
            if heartbeat is None or now - last > LEASE_S / 2 + HEARTBEAT_S:
                self._in_contact_since = None
            if heartbeat is not None:
                last = now
            # The loop may already be closed while the server stops.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._received, worker_id, heartbeat)

    def _received(self, worker_id: str, heartbeat: Heartbeat | None) -> None:
        if heartbeat is None:
            return
        if self._in_contact_since is None:
            self._in_contact_since = self._monotonic()
        if worker_id != self._id:
            return
        if not heartbeat.is_registered:
            self._start(self._register_again(worker_id))
            return
        for job_id in heartbeat.cancelled:
            self._runner.cancel(job_id)
        missing = heartbeat.running - {job.id for job in self._runner.jobs}
        # Once is no proof: the job may have been leased or ended since.
        lost = missing & self._missing
        self._missing = missing
        if lost and not self._is_leasing:
            self._start(self._requeue_lost(worker_id, lost))

    async def _requeue_lost(self, worker_id: str, job_ids: frozenset[str]) -> None:
        if requeued := await self._transitions.requeue_lost(worker_id, job_ids):
            logger.warning("requeued %d jobs that were leased to this worker and did not reach it", requeued)
            self._lifecycle.wake()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_tolerate(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _tolerate(work: Coroutine[Any, Any, None]) -> None:
    """Run work that the next heartbeat repeats if the store fails, which has logged the error."""
    with suppress(StoreError):
        await work
