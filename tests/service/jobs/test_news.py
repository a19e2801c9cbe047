"""What a process learns of the jobs that other processes run: by hints, and by polling when hints are lost."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

from allaprima.domain.events import Event, EventId, EventType, Started
from allaprima.domain.hints import Hint, HintKind, Reconnected
from allaprima.domain.jobs import JobProgress, JobState
from allaprima.errors import StoreError
from allaprima.service.jobs.news import JobNews
from allaprima.service.jobs.runner import JobRunner
from allaprima.service.jobs.shared_events import SharedEventBus
from allaprima.service.jobs.signal import SharedQueueSignal
from allaprima.store.jobs import JobRepository
from allaprima.store.memory_hints import MemoryHints
from tests.clock import FakeClock
from tests.service.jobs.submitting import LIMIT_S
from tests.waiting import eventually

#: A poll that no test waits for.
NEVER_S = 1e6


@dataclass
class OwnJob:
    id: str
    attempt: int = 1


class FakeRunner:
    """Runs nothing; records what it is asked to cancel."""

    def __init__(self) -> None:
        self.jobs: list[OwnJob] = []
        self.cancelled: list[str] = []

    def cancel(self, job_id: str) -> bool:
        self.cancelled.append(job_id)
        return True


class FakeJobs:
    """The rows of jobs, and the ids that were asked for."""

    def __init__(self) -> None:
        self.rows: dict[str, JobProgress] = {}
        self.asked: list[set[str]] = []
        self.fails = False

    def set(self, state: JobState, attempt: int = 1, job_id: str = "a", *, is_cancel_requested: bool = False) -> None:
        self.rows[job_id] = JobProgress(job_id, state, attempt, is_cancel_requested)

    async def progress(self, job_ids: Collection[str]) -> list[JobProgress]:
        self.asked.append(set(job_ids))
        if self.fails:
            raise StoreError("away")
        return [self.rows[job_id] for job_id in sorted(job_ids) if job_id in self.rows]


@dataclass
class Process:
    """One process, joined to the others by hints."""

    bus: SharedEventBus
    signal: SharedQueueSignal
    jobs: FakeJobs = field(default_factory=FakeJobs)
    runner: FakeRunner = field(default_factory=FakeRunner)

    @asynccontextmanager
    async def running(self, hints: MemoryHints, poll_s: float = NEVER_S) -> AsyncIterator[None]:
        jobs, runner = cast("JobRepository", self.jobs), cast("JobRunner", self.runner)
        async with JobNews(hints, jobs, runner, self.bus, self.signal, poll_s).running():
            yield


@pytest.fixture
def hints() -> MemoryHints:
    return MemoryHints()


@pytest.fixture
def process(clock: FakeClock, hints: MemoryHints) -> Process:
    return Process(SharedEventBus(clock, clock, hints), SharedQueueSignal(hints, poll_s=NEVER_S))


async def next_of(events: AsyncIterator[Event]) -> Event:
    return await asyncio.wait_for(anext(events), LIMIT_S)


async def test_waiting_client_learns_of_end_in_another_process_by_hint(process: Process, hints: MemoryHints) -> None:
    async with process.running(hints), process.bus.follow("a") as events:
        process.jobs.set(JobState.SUCCEEDED, attempt=3)
        hints.send(Hint(HintKind.ENDED, "a"))
        end = await next_of(events)
        assert end == process.bus.final_event(EventType.SUCCEEDED, 3)
        assert process.jobs.asked == [{"a"}]


async def test_waiting_client_learns_of_end_without_a_hint(process: Process, hints: MemoryHints) -> None:
    async with process.running(hints, poll_s=0.01), process.bus.follow("a") as events:
        process.jobs.set(JobState.RUNNING)
        assert (await next_of(events)).type == EventType.RUNNING
        process.jobs.set(JobState.FAILED)
        assert (await next_of(events)).type == EventType.FAILED


async def test_failing_store_delays_the_news(process: Process, hints: MemoryHints) -> None:
    process.jobs.set(JobState.CANCELLED)
    process.jobs.fails = True
    async with process.running(hints, poll_s=0.01), process.bus.follow("a") as events:
        await eventually(lambda: len(process.jobs.asked) > 1)
        process.jobs.fails = False
        assert (await next_of(events)).type == EventType.CANCELLED


async def test_every_followed_job_is_read_after_hints_were_lost(process: Process, hints: MemoryHints) -> None:
    async with process.running(hints), process.bus.follow("a") as events, process.bus.follow("b"):
        process.jobs.set(JobState.SUCCEEDED)
        process.jobs.set(JobState.QUEUED, 0, "b")
        hints.deliver(Reconnected())
        assert (await next_of(events)).type == EventType.SUCCEEDED
        assert process.jobs.asked == [{"a", "b"}]
        await asyncio.wait_for(process.signal.wait(), LIMIT_S)


async def test_watcher_receives_each_start_once(process: Process, hints: MemoryHints) -> None:
    process.jobs.set(JobState.RUNNING, attempt=2)
    async with process.running(hints), process.bus.follow("a", previews=True) as events:
        # The job may run already, so it is read without a hint.
        start = await next_of(events)
        assert (start.id, start.data) == (EventId(2, 1), Started(2))
        hints.send(Hint(HintKind.RUNNING, "a"))
        await eventually(lambda: len(process.jobs.asked) == 2)
        process.jobs.set(JobState.RUNNING, attempt=3)
        hints.send(Hint(HintKind.RUNNING, "a"))
        assert (await next_of(events)).data == Started(3)


async def test_jobs_of_no_client_are_not_read(process: Process, hints: MemoryHints) -> None:
    async with process.running(hints), process.bus.follow("a"):
        hints.send(Hint(HintKind.ENDED, "foreign"))
        hints.send(Hint(HintKind.CANCEL, "foreign"))
        hints.send(Hint(HintKind.ENDED, "a"))
        await eventually(lambda: process.jobs.asked)
        assert process.jobs.asked == [{"a"}]


async def test_job_that_this_process_runs_is_reported_by_its_runner_alone(process: Process, hints: MemoryHints) -> None:
    process.runner.jobs = [OwnJob("a")]
    process.jobs.set(JobState.RUNNING)
    async with process.running(hints), process.bus.follow("a") as events:
        hints.send(Hint(HintKind.RUNNING, "a"))
        await eventually(lambda: process.jobs.asked)
        process.bus.publish("a", EventType.RUNNING, Started(1))
        process.bus.publish("a", EventType.SUCCEEDED)
        assert [(await next_of(events)).type for _ in range(2)] == [EventType.RUNNING, EventType.SUCCEEDED]


async def test_own_job_is_cancelled_if_the_database_has_the_request(process: Process, hints: MemoryHints) -> None:
    process.runner.jobs = [OwnJob("a"), OwnJob("b")]
    process.jobs.set(JobState.RUNNING, job_id="a")
    process.jobs.set(JobState.RUNNING, job_id="b", is_cancel_requested=True)
    async with process.running(hints):
        hints.send(Hint(HintKind.CANCEL, "a"))
        hints.send(Hint(HintKind.CANCEL, "b"))
        await eventually(lambda: process.runner.cancelled)
    assert process.runner.cancelled == ["b"]


async def test_stream_of_removed_job_ends(process: Process, hints: MemoryHints) -> None:
    async with process.running(hints), process.bus.follow("a") as events:
        hints.send(Hint(HintKind.ENDED, "a"))
        with pytest.raises(StopAsyncIteration):
            await next_of(events)
    assert process.bus.unfinished == set()


async def test_start_and_end_are_hinted_and_steps_are_not(process: Process, hints: MemoryHints) -> None:
    async with hints.follow() as sent:
        process.bus.publish("a", EventType.RUNNING, Started(1))
        process.bus.publish("a", EventType.STEP)
        process.bus.publish("a", EventType.FAILED)
        process.signal.notify()
        found = [await asyncio.wait_for(anext(sent), LIMIT_S) for _ in range(3)]
    assert found == [Hint(HintKind.RUNNING, "a"), Hint(HintKind.ENDED, "a"), Hint(HintKind.WORK)]


async def test_news_of_another_process_are_not_hinted_again(process: Process, hints: MemoryHints) -> None:
    process.jobs.set(JobState.RUNNING)
    async with process.running(hints, poll_s=0.01), process.bus.follow("a") as events, hints.follow() as sent:
        assert (await next_of(events)).type == EventType.RUNNING
        process.jobs.set(JobState.SUCCEEDED)
        assert (await next_of(events)).type == EventType.SUCCEEDED
        process.signal.notify()
        assert await asyncio.wait_for(anext(sent), LIMIT_S) == Hint(HintKind.WORK)


@pytest.mark.parametrize("text", ["work ", "running 0196", "ended 0196", "cancel 0196"])
def test_hint_survives_its_encoding(text: str) -> None:
    hint = Hint.parse(text)
    assert hint is not None
    assert hint.encode() == text
    assert Hint.parse("later 0196") is None
