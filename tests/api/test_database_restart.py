"""PostgreSQL restarts or is away while clients use the API: they get 503 with Retry-After, and no other error."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from allaprima.service.app import Service
from tests.both_databases import on_postgresql_alone
from tests.fakes import FakeClock, FakeEngine, ended, open_service
from tests.store.postgres_server import PostgresServer
from tests.waiting import eventually

BODY = {"model": "sketch", "prompt": "a boat", "size": "64x64"}
#: Requests that read and that write.
REQUESTS = (
    ("GET", "/v1/jobs", None),
    ("GET", "/v1/images?q=boat", None),
    ("GET", "/v2/usage?period=24h", None),
    ("GET", "/v2/billing/transactions", None),
    ("POST", "/v1/jobs", BODY),
    ("POST", "/v1/images/generations", BODY),
    ("GET", "/v1/key", None),
)


@pytest.fixture
def cluster() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own."""
    started = PostgresServer()
    yield started
    started.close()


@pytest.fixture
async def service(
    tmp_path: Path, cluster: PostgresServer, engine: FakeEngine, clock: FakeClock
) -> AsyncIterator[Service]:
    store = {"database_url": cluster.create("service")}
    async with open_service(tmp_path, engine, clock, store=store) as opened:
        yield opened


async def request(client: httpx2.AsyncClient, number: int) -> httpx2.Response:
    """Send one of the requests. It must succeed, or be answered that it may be repeated."""
    method, path, body = REQUESTS[number % len(REQUESTS)]
    answer = await client.request(method, path, json=body)
    assert answer.is_success or answer.status_code == 503, (method, path, answer.status_code, answer.text)
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["code"] == "database_unavailable", answer.text
    return answer


@on_postgresql_alone
async def test_restart_of_database_is_answered_by_503_at_most(
    client: httpx2.AsyncClient, service: Service, cluster: PostgresServer
) -> None:
    acknowledged: set[str] = set()
    is_over = False

    async def use(number: int) -> None:
        while not is_over:
            answer = await request(client, number)
            if answer.request.url.path == "/v1/jobs" and answer.status_code == 202:
                acknowledged.add(answer.json()["id"])

    async with asyncio.TaskGroup() as users:
        for number in range(2 * len(REQUESTS)):
            users.create_task(use(number))
        for _ in range(2):
            before = len(acknowledged)
            await eventually(lambda before=before: len(acknowledged) > before + 5)
            await asyncio.to_thread(cluster.restart_at_once)
        is_over = True

    await asyncio.to_thread(cluster.stop_at_once)
    answers = await asyncio.gather(*(request(client, number) for number in range(len(REQUESTS))))
    assert {answer.status_code for answer in answers} == {503}

    await asyncio.to_thread(cluster.start)
    for number in range(len(REQUESTS)):
        assert (await request(client, number)).is_success
    assert {(await ended(service, job_id)).state for job_id in acknowledged} == {"succeeded"}
