"""The queue limit, and the retry times of refused clients."""

import asyncio
import heapq
import itertools
import random
import statistics
from collections import deque
from pathlib import Path

import pytest
from uuid_utils import uuid7

from allaprima.domain.clock import Clocks
from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.domain.jobs import Job, JobOptions, JobState, QueueLoad
from allaprima.errors import QueueFull
from allaprima.service.jobs.eta import Eta
from allaprima.service.jobs.queue import JobQueue
from allaprima.service.jobs.signal import MemoryQueueSignal
from tests.fakes import FakeClock, FakeEngine, open_service
from tests.service.jobs.submitting import finish, states, submit

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=512, height=512)
JOB_S = 1.0


class Server:
    """A queue over an engine that generates one job at a time, in simulated time."""

    def __init__(self, size: int, clock: FakeClock, durations: random.Random | None = None) -> None:
        self.clock = clock
        self.eta = Eta(1, clock)
        self.queue = JobQueue(self, self, self.eta, MemoryQueueSignal(), self, Clocks(clock, clock), size)
        self._durations = durations
        self._waiting: deque[Job] = deque()
        self._held: deque[Job] = deque()
        self._started_at = 0.0
        #: End of the running job.
        self.next_end: float | None = None
        self._learn(JOB_S)

    def _learn(self, seconds: float) -> None:
        job = new_job()
        self.eta.submitted(job)
        self.eta.started(job)
        self.clock.now += seconds
        self.eta.generated(job, timings(seconds))
        self.eta.released(job.id)

    async def admit(self, job: Job, queue_size: int, _claim: object, _waits_at: None) -> Job:
        if len(self._waiting) + len(self._held) >= queue_size:
            raise QueueFull(retry_after_s=0)
        self._waiting.append(job)
        self._lease()
        return job

    async def unfinished_of_key(self, key_id: str) -> int:
        return sum(job.key_id == key_id for job in (*self._waiting, *self._held))

    async def load(self) -> QueueLoad:
        seconds = sum(self.eta.seconds(job.request) for job in self._waiting)
        return QueueLoad(len(self._waiting), len(self._waiting) + len(self._held), seconds)

    def _lease(self) -> None:
        while self._waiting and len(self._held) < 2:
            self._held.append(self._waiting.popleft())
            self.eta.submitted(self._held[-1])
        if self._held and self.next_end is None:
            self.eta.started(self._held[0])
            self._started_at = self.clock.now
            share = self._durations.uniform(0.7, 1.3) if self._durations else 1.0
            self.next_end = self.clock.now + JOB_S * share

    def finish_job(self) -> None:
        """Finish the running job now."""
        job = self._held.popleft()
        self.eta.generated(job, timings(self.clock.now - self._started_at))
        self.eta.released(job.id)
        self.next_end = None
        self._lease()


def new_job(key_id: str = "key") -> Job:
    return Job(
        id=str(uuid7()),
        account_id="account",
        key_id=key_id,
        state=JobState.QUEUED,
        request=REQUEST,
        created_at=0.0,
        options=JobOptions(model=REQUEST.model),
    )


def timings(seconds: float) -> Timings:
    return Timings(text=0.0, steps=(seconds / 4,) * 4, decode=0.0, safety=0.0, encode=0.0)


async def refusal(queue: JobQueue, key_id: str = "key") -> float:
    """Return the `retry_after_s` of a refused client."""
    with pytest.raises(QueueFull) as refused:
        await queue.add(new_job(key_id), None)
    assert refused.value.retry_after_s is not None
    return refused.value.retry_after_s


async def test_refused_clients_get_successive_retry_times(clock: FakeClock) -> None:
    server = Server(3, clock)
    for _ in range(3):
        await server.queue.add(new_job(), None)
    waits = [await refusal(server.queue) for _ in range(5)]
    assert waits == pytest.approx([JOB_S * number for number in (1, 2, 3, 4, 5)])


async def test_retry_on_time_without_room_gets_next_slot(clock: FakeClock) -> None:
    server = Server(3, clock)
    for _ in range(3):
        await server.queue.add(new_job(), None)
    first, *_ = [await refusal(server.queue) for _ in range(4)]
    # The job takes longer than estimated: the slot is not free yet.
    clock.now += first
    assert await refusal(server.queue) < JOB_S / 2
    # The client without a reservation is the last of four.
    assert await refusal(server.queue) > 3 * JOB_S


async def test_free_slot_accepts_new_client_after_refusals(clock: FakeClock) -> None:
    server = Server(3, clock)
    for _ in range(3):
        await server.queue.add(new_job(), None)
    for _ in range(5):
        await refusal(server.queue)
    clock.now += JOB_S
    server.finish_job()
    newcomer = new_job()
    assert await server.queue.add(newcomer, None) == newcomer


async def simulate(server: Server, clients: int, refusals: int, keys: int = 1) -> list[float]:
    """Let clients submit repeatedly, each retrying when it is due; return the sorted relative errors.

    An error compares the first `retry_after_s` of a client with the time until it was accepted.
    """
    clock, errors, numbers = server.clock, list[float](), itertools.count()
    asked: dict[int, tuple[float, float]] = {}
    latency = random.Random(9)
    arrivals = [(clock.now + client / 10, next(numbers), client) for client in range(clients)]
    while len(errors) < refusals:
        if server.next_end is not None and server.next_end <= arrivals[0][0]:
            clock.now = server.next_end
            server.finish_job()
            continue
        clock.now, _, client = heapq.heappop(arrivals)
        try:
            await server.queue.add(new_job(f"key {client % keys}"), None)
        except QueueFull as refused:
            wait_s = refused.retry_after_s
            asked.setdefault(client, (clock.now, wait_s))
        else:
            wait_s = 0.05
            if client in asked:
                refused_at, asked_s = asked.pop(client)
                waited_s = clock.now - refused_at
                errors.append(abs(asked_s - waited_s) / waited_s)
        at = clock.now + wait_s + latency.uniform(0, 0.04)
        heapq.heappush(arrivals, (at, next(numbers), client))
    # The first refusals came before the throughput was measured well.
    return sorted(errors[clients:])


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("clients", "keys"), [(13, 1), (30, 1), (60, 1), (30, 3), (30, 30), (60, 6)])
async def test_retry_time_predicts_time_of_acceptance(clock: FakeClock, clients: int, keys: int, seed: int) -> None:
    errors = await simulate(Server(10, clock, random.Random(seed)), clients, refusals=400, keys=keys)
    assert statistics.median(errors) <= 0.2
    assert errors[int(0.9 * len(errors))] <= 0.5


async def flood(server: Server, until: float, key_id: str = "flood", every_s: float = 0.01) -> list[float]:
    """Submit new jobs of a key without regard to Retry-After until a time; return the refusals' `retry_after_s`."""
    waits: list[float] = []
    while server.clock.now < until:
        if server.next_end is not None and server.next_end <= server.clock.now:
            server.finish_job()
        try:
            await server.queue.add(new_job(key_id), None)
        except QueueFull as refused:
            waits.append(refused.retry_after_s)
        server.clock.now += every_s
    return waits


async def test_flood_of_one_key_lengthens_its_own_times_only(clock: FakeClock) -> None:
    server = Server(20, clock)
    waits = await flood(server, clock.now + 20)
    assert len(waits) > 1900
    assert waits[-1] > 100 * JOB_S
    for _ in range(3):
        job, began = new_job("fresh"), clock.now
        while True:
            try:
                await server.queue.add(job, None)
                break
            except QueueFull as refused:
                asked_s = refused.retry_after_s
            assert asked_s <= 2 * JOB_S
            await flood(server, clock.now + asked_s)
        assert clock.now - began <= 2.2 * JOB_S
    # The times of every other key depend on its own requests only.
    for number in range(3):
        assert await refusal(server.queue, f"other {number}") <= (2 + number) * JOB_S


async def test_clients_that_never_return_cost_others_nothing(clock: FakeClock) -> None:
    server = Server(3, clock)
    for number in range(3):
        await server.queue.add(new_job(f"early {number}"), None)
    for number in range(100):
        await refusal(server.queue, f"absent {number}")
    # Jobs of the early clients go on while the expected retries pass, and no client comes.
    for number in range(101):
        clock.now += JOB_S
        server.finish_job()
        job = new_job(f"early {number % 3}")
        assert await server.queue.add(job, None) == job
    assert await refusal(server.queue, "fresh") <= 2 * JOB_S


async def test_empty_queue_accepts_fresh_client_after_flood(clock: FakeClock) -> None:
    server = Server(20, clock)
    await flood(server, clock.now + 5)
    while server.next_end is not None:
        clock.now = server.next_end
        server.finish_job()
    for key_id in ("fresh", "flood"):
        job = new_job(key_id)
        assert await server.queue.add(job, None) == job


# Over the store -----------------------------------------------------------------------------------------------------


async def test_full_queue_refuses_with_seconds_until_free_slot(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock, engine_settings={"queue_size": 3}) as service:
        jobs = [await submit(service) for _ in range(3)]
        with pytest.raises(QueueFull) as caught:
            await submit(service)
        assert (caught.value.retry_after_s or 0) > 0
        assert len(states(tmp_path)) == 3
        await engine.until_held()
        engine.finish(jobs[0].id)
        await finish(service, jobs[0])
        # No slot is reserved, so a new client is accepted at once.
        assert await submit(service)
        engine.release()


async def test_queue_limit_is_exact_for_concurrent_submissions(
    tmp_path: Path, engine: FakeEngine, clock: FakeClock
) -> None:
    engine.hold()
    async with open_service(tmp_path, engine, clock, engine_settings={"queue_size": 3}) as service:
        ends = await asyncio.gather(*(submit(service) for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(end, Job) for end in ends) == 3
        assert sum(isinstance(end, QueueFull) for end in ends) == 17
        assert len(states(tmp_path)) == 3
