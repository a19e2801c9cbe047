"""Two servers on one PostgreSQL database: a client of one does not notice that the other runs its job."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from allaprima.domain.accounts import ApiKey
from allaprima.domain.events import EventType
from allaprima.domain.jobs import JobState
from allaprima.service.app import Service
from tests.both_databases import on_postgresql_alone
from tests.fakes import FakeEngine, client_of, open_service
from tests.service.jobs.submitting import LEASED, LIMIT_S, submit
from tests.waiting import eventually

pytestmark = on_postgresql_alone
PROMPT = {"model": "allaprima/sketch", "prompt": "a boat", "image_size": {"width": 64, "height": 64}}


@dataclass
class Server:
    """A running server."""

    service: Service
    engine: FakeEngine


Start = Callable[[], AbstractAsyncContextManager[Server]]


@asynccontextmanager
async def running(folder: Path, *, is_pooled: bool) -> AsyncIterator[Server]:
    engine = FakeEngine()
    engine.hold()
    store = {"pooled": is_pooled}
    async with open_service(folder, engine, time.time, monotonic=time.monotonic, store=store) as service:
        yield Server(service, engine)


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Starts a server on the database of the test. Parameter: whether its URL is pooled, so that hints are off."""
    return partial(running, tmp_path, is_pooled=getattr(request, "param", False))


@dataclass
class Pair:
    """Two servers. The engine of `a` is full, so that `b` runs every new job."""

    a: Server
    b: Server
    owner: ApiKey
    key: str


@pytest.fixture
async def pair(start: Start) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(start())
        key = a.service.first_key
        assert key is not None
        owner = await a.service.keys.authenticate(key)
        for _ in range(LEASED):
            await submit(a.service, owner)
        await a.engine.until_held(LEASED)
        yield Pair(a, await stack.enter_async_context(start()), owner, key)


@pytest.mark.parametrize("start", [False, True], indirect=True, ids=["hints", "polling"])
async def test_synchronous_request_returns_images_that_other_server_generated(
    pair: Pair, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    asks_for_url = "ALLAPRIMA_STORE__HINTS_URL" in "".join(one.getMessage() for one in caplog.get_records("setup"))
    assert asks_for_url == ("polling" in request.node.name)
    async with client_of(pair.a.service, key=pair.key) as client:
        answer = asyncio.create_task(client.post("/v1/images/generations", json=PROMPT))
        await pair.b.engine.until_held()
        pair.b.engine.release()
        found = await asyncio.wait_for(answer, LIMIT_S)
        assert found.status_code == 200
        assert (await client.get(found.json()["data"][0]["url"])).status_code == 200
    assert len(pair.a.engine.held) == LEASED


@pytest.mark.parametrize("start", [False, True], indirect=True, ids=["hints", "polling"])
async def test_stream_shows_start_and_end_of_job_that_other_server_runs(pair: Pair) -> None:
    pair.b.engine.release()
    watched = await submit(pair.a.service, pair.owner)
    seen = [event.type async for event in pair.a.service.jobs.watch(watched)]
    # The start may be read together with the end.
    assert seen[-1] == EventType.SUCCEEDED
    assert set(seen) <= {EventType.QUEUED, EventType.RUNNING, EventType.SUCCEEDED}


async def test_stream_shows_places_and_each_attempt(pair: Pair) -> None:
    running_ = [await submit(pair.a.service, pair.owner) for _ in range(LEASED)]
    await pair.b.engine.until_held(LEASED)
    job = await submit(pair.a.service, pair.owner)
    events = pair.a.service.jobs.watch(job)
    place = await asyncio.wait_for(anext(events), LIMIT_S)
    assert place.type == EventType.QUEUED
    pair.b.engine.finish(running_[0].id)
    started = await asyncio.wait_for(anext(events), LIMIT_S)
    assert (started.type, str(started.id)) == (EventType.RUNNING, "1.1")
    position = await pair.a.service.jobs.positions.of(await pair.a.service.jobs.get(pair.owner.account_id, job.id))
    assert position.predicted_finish is not None
    pair.b.engine.release()
    end = await asyncio.wait_for(anext(events), LIMIT_S)
    assert (end.type, end.id.attempt) == (EventType.SUCCEEDED, 1)


async def test_job_is_cancelled_at_server_that_does_not_run_it(pair: Pair) -> None:
    job = await submit(pair.a.service, pair.owner)
    await pair.b.engine.until_held()
    cancelled = await pair.a.service.cancellation.cancel(pair.owner.account_id, job.id)
    # Within the two seconds that a cancellation waits, and before the next heartbeat of the worker.
    assert cancelled.state == JobState.CANCELLED
    assert pair.b.engine.held == ()


async def test_queued_job_that_other_server_cancels_ends_its_wait(pair: Pair) -> None:
    for _ in range(LEASED):
        await submit(pair.a.service, pair.owner)
    await pair.b.engine.until_held(LEASED)
    job = await submit(pair.a.service, pair.owner)
    waiting = asyncio.create_task(pair.a.service.jobs.wait(job, LIMIT_S))
    await asyncio.sleep(0)
    await pair.b.service.cancellation.cancel(pair.owner.account_id, job.id)
    assert (await waiting).state == JobState.CANCELLED


async def test_jobs_of_server_that_stops_are_run_by_the_other(start: Start) -> None:
    async with start() as a:
        async with start() as b:
            owner = (await a.service.keys.all())[0]
            jobs = [await submit(b.service, owner) for _ in range(3 * LEASED)]
            await a.engine.until_held(LEASED)
            await b.engine.until_held(LEASED)
        a.engine.release()
        ended = [await a.service.jobs.wait(job, LIMIT_S) for job in jobs]
        assert {job.state for job in ended} == {JobState.SUCCEEDED}
        assert sorted(job.attempt for job in ended) == [1] * (2 * LEASED) + [2] * LEASED
        await eventually(lambda: not a.engine.held)
