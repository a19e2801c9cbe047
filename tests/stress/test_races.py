"""Concurrent clients: one job for each idempotency key, and no account overdrawn."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.processes import Server, allaprima
from tests.stress.conftest import BODY, CREDITS
from tests.stress.request_log import check_billing, wait_until_done


def credit(server: Server, usd: float, folder: Path) -> None:
    done = allaprima("accounts", "credit", "default", usd, "--data-dir", server.data_dir, folder=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(1800)
async def test_concurrent_equal_posts_create_one_job_for_each_key(
    small_server: Server, tmp_path: Path, full: bool, figures: Callable[[str], None]
) -> None:
    keys, clients = (200, 50) if full else (20, 50)
    credit(small_server, 1000, tmp_path)
    headers = {"authorization": f"Bearer {small_server.key}"}
    limits = httpx2.Limits(max_connections=clients)
    statuses: Counter[int] = Counter()
    created: dict[int, set[str]] = {}
    async with httpx2.AsyncClient(base_url=small_server.url, headers=headers, limits=limits, timeout=120) as client:
        for number in range(keys):
            named = {"idempotency-key": f"race {number}"}
            path = ("/v1/jobs", "/v1/images/generations")[number % 2]
            posts = (client.post(path, json=BODY, headers=named) for _ in range(clients))
            for answer in await asyncio.gather(*posts):
                statuses[answer.status_code] += 1
                if answer.status_code == 202:
                    created.setdefault(number, set()).add(answer.json()["id"])
    wait_until_done(small_server.query)
    jobs = small_server.query("SELECT count(*) FROM jobs")[0][0]
    charged = small_server.query("SELECT count(*) FROM ledger WHERE type = 'MODEL_USAGE'")[0][0]
    figures(f"{keys} keys x {clients} concurrent equal POSTs: {jobs} jobs, {charged} charges, answers {dict(statuses)}")
    assert set(statuses) <= {200, 202, 409}
    assert all(len(ids) == 1 for ids in created.values())
    assert (jobs, charged) == (keys, keys)
    assert check_billing(small_server.query) == keys * CREDITS


@pytest.mark.timeout(1800)
async def test_concurrent_clients_never_overdraw(
    small_server: Server, tmp_path: Path, full: bool, figures: Callable[[str], None]
) -> None:
    clients, rounds = 64, 20 if full else 3
    headers = {"authorization": f"Bearer {small_server.key}"}
    limits = httpx2.Limits(max_connections=clients)
    statuses: Counter[int] = Counter()
    for _ in range(rounds):
        # Credits for exactly one image.
        await asyncio.to_thread(credit, small_server, CREDITS / 2_000_000, tmp_path)
        async with httpx2.AsyncClient(base_url=small_server.url, headers=headers, limits=limits, timeout=120) as client:
            posts = (client.post("/v1/images/generations", json=BODY) for _ in range(clients))
            for answer in await asyncio.gather(*posts):
                statuses[answer.status_code] += 1
    spent = check_billing(small_server.query)
    balance = small_server.query("SELECT sum(balance) FROM accounts")[0][0]
    figures(f"{rounds} x {clients} clients with credits for one image: {statuses[200]} generated, balance {balance}")
    assert statuses == {200: rounds, 403: rounds * (clients - 1)}
    assert (spent, balance) == (rounds * CREDITS, 0)
