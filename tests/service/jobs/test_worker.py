"""The worker of a process: registration, heartbeats, and what it does when it was taken for dead."""

import asyncio
import queue
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from allaprima.domain.accounts import ApiKey
from allaprima.domain.clock import Clocks
from allaprima.domain.jobs import Job
from allaprima.domain.workers import Heartbeat, WorkerRecord
from allaprima.errors import DatabaseUnavailable
from allaprima.service.jobs.events import MemoryEventBus
from allaprima.service.jobs.signal import MemoryQueueSignal
from allaprima.service.jobs.worker import Worker
from allaprima.service.lifecycle import Lifecycle
from allaprima.store.job_transitions import LeaseOutcome
from allaprima.store.workers import LEASE_S
from tests.clock import NOW, FakeClock
from tests.store.factories import new_job
from tests.waiting import eventually

OWNER = ApiKey(id="key", account_id="account", prefix="abcd1234", created_at=NOW, updated_at=NOW)
HEARTBEAT_S = 0.01


@dataclass
class Store:
    """The statements on workers and jobs, in memory. Heartbeats get the scripted answers, the last one repeatedly."""

    answers: "queue.SimpleQueue[Heartbeat | None]" = field(default_factory=queue.SimpleQueue)
    registered: list[WorkerRecord] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    requeued: list[str] = field(default_factory=list)
    #: Ids of workers that were taken for dead, and of those whose lease is over.
    dead: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    #: Number of heartbeats that were sent.
    sent: int = 0
    job: Job = field(default_factory=lambda: new_job(OWNER))

    async def register(self, worker: WorkerRecord) -> None:
        self.registered.append(worker)

    async def remove(self, worker_id: str) -> None:
        self.removed.append(worker_id)

    def renew(self, worker_id: str) -> Heartbeat:
        if worker_id in self.dead:
            return Heartbeat(is_registered=False)
        if worker_id in self.over:
            self.over.remove(worker_id)
            return Heartbeat(is_registered=True)
        self.sent += 1
        answer = self.answers.get()
        if answer is None:
            raise DatabaseUnavailable
        return answer

    async def lease(self, worker_id: str, _now: float) -> LeaseOutcome:
        is_refused = worker_id in self.dead | self.over
        return LeaseOutcome(is_registered=False) if is_refused else LeaseOutcome(self.job)

    async def requeue_lost(self, _worker_id: str, job_ids: Collection[str]) -> int:
        self.requeued.extend(job_ids)
        return len(job_ids)


@dataclass
class Runner:
    """The accepted jobs, and which were cancelled."""

    jobs: list[Job] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def cancel(self, job_id: str) -> None:
        self.cancelled.append(job_id)


@dataclass
class Running:
    """A registered worker over fakes."""

    worker: Worker
    store: Store
    runner: Runner
    clock: FakeClock

    async def answer(self, *answers: Heartbeat | None) -> None:
        """Answer the next heartbeats, and wait until the worker has handled them."""
        for answer in answers:
            await eventually(lambda: self.store.sent)
            sent = self.store.sent
            self.store.answers.put(answer)
            # The heartbeat after it is sent once the event loop has the answer.
            await eventually(lambda sent=sent: self.store.sent > sent)
        # The worker handles the answer in one turn of the event loop, and what follows from it in the next ones.
        for _ in range(5):
            await asyncio.sleep(0)


@asynccontextmanager
async def registered() -> AsyncIterator[Running]:
    clock = FakeClock()
    clocks = Clocks(clock, clock)
    store, runner = Store(), Runner()
    lifecycle = Lifecycle(MemoryEventBus(*clocks), MemoryQueueSignal())
    worker = Worker(store, store, runner, lifecycle, clocks, 3, HEARTBEAT_S)
    async with worker.registered():
        try:
            yield Running(worker, store, runner, clock)
        finally:
            store.answers.put(Heartbeat(is_registered=True))


def holds(*jobs: Job, cancelled: Collection[str] = ()) -> Heartbeat:
    return Heartbeat(is_registered=True, running=frozenset(job.id for job in jobs), cancelled=frozenset(cancelled))


async def test_worker_is_removed_when_it_stops() -> None:
    async with registered() as found:
        [record] = found.store.registered
        assert (record.id, record.concurrency) == (found.worker.id, 3)
    assert found.store.removed == [record.id]


async def test_worker_that_was_taken_for_dead_leases_under_a_new_id() -> None:
    async with registered() as found:
        old = found.worker.id
        found.store.dead.add(old)
        assert (await found.worker.lease()).job == found.store.job
        assert found.worker.id != old
        assert [record.id for record in found.store.registered] == [old, found.worker.id]


async def test_worker_whose_lease_is_over_renews_it_while_it_is_registered() -> None:
    async with registered() as found:
        old = found.worker.id
        found.store.over.add(old)
        assert (await found.worker.lease()).job == found.store.job
        assert found.worker.id == old
        assert len(found.store.registered) == 1


async def test_idle_worker_that_was_taken_for_dead_registers_again() -> None:
    async with registered() as found:
        old = found.worker.id
        found.store.dead.add(old)
        found.store.answers.put(holds())
        await eventually(lambda: found.worker.id != old)


async def test_job_whose_lease_was_not_answered_is_requeued_after_two_heartbeats() -> None:
    async with registered() as found:
        lost, held = new_job(OWNER), new_job(OWNER)
        found.runner.jobs.append(held)
        await found.answer(holds(lost, held))
        assert found.store.requeued == []
        await found.answer(holds(lost, held))
        assert found.store.requeued == [lost.id]


async def test_job_that_ended_between_two_heartbeats_is_not_requeued() -> None:
    async with registered() as found:
        one, two = new_job(OWNER), new_job(OWNER)
        await found.answer(holds(one), holds(two), holds(one))
        assert found.store.requeued == []


async def test_heartbeat_cancels_a_running_job_that_a_client_cancelled_elsewhere() -> None:
    async with registered() as found:
        job = new_job(OWNER)
        found.runner.jobs.append(job)
        await found.answer(holds(job, cancelled={job.id}))
        assert found.runner.cancelled == [job.id]


async def test_only_a_worker_in_contact_for_a_whole_lease_judges_others() -> None:
    async with registered() as found:
        assert not found.worker.is_in_contact
        found.clock.now += LEASE_S + 1
        assert found.worker.is_in_contact
        await found.answer(None)
        assert not found.worker.is_in_contact
        await found.answer(holds())
        assert not found.worker.is_in_contact
        found.clock.now += LEASE_S + 1
        assert found.worker.is_in_contact


async def test_outage_that_one_heartbeat_waits_for_breaks_the_contact() -> None:
    async with registered() as found:
        found.clock.now += LEASE_S + 1
        await found.answer(holds())
        found.clock.now += LEASE_S + 1
        await found.answer(holds())
        assert not found.worker.is_in_contact
        found.clock.now += 1
        await found.answer(holds())
        found.clock.now += LEASE_S
        assert found.worker.is_in_contact


async def test_heartbeat_goes_on_after_a_failure() -> None:
    async with registered() as found:
        await found.answer(None, None, holds())
        assert len(found.store.registered) == 1
