"""Kills of the server at random times: no acknowledged job is lost, charged twice or stuck."""

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from allaprima.service.jobs.queue_monitor import MAX_CRASHES
from tests.acceptance.conftest import Serve
from tests.acceptance.processes import allaprima
from tests.stress.conftest import CREDITS, PRICE, SMALL
from tests.stress.request_log import RequestLog, check_billing, check_images, read, wait_until_done

SHORT, LONG = 4, 200
GIVEN_UP = f"the server crashed {MAX_CRASHES} times while it generated this job"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.timeout(7200)
def test_kills_at_random_times_lose_no_job(
    serve: Serve, tmp_path: Path, full: bool, figures: Callable[[str], None]
) -> None:
    chance = random.Random(5)
    folder, port = tmp_path / "data", free_port()
    server = serve(folder, "--port", port, **SMALL, **PRICE)
    assert allaprima("accounts", "credit", "default", "1000", "--data-dir", folder, folder=tmp_path).returncode == 0
    log = RequestLog(server.url, server.key)
    kills = LONG if full else SHORT
    with log.submitting(threads=2):
        for _ in range(kills):
            time.sleep(chance.uniform(0.0, 1.0))
            server.kill()
            server = serve(folder, "--port", port, **SMALL, **PRICE)
    wait_until_done(folder)
    jobs = {row[0]: row[1:] for row in read(folder, "SELECT id, state, error_message FROM jobs")}
    lost = [job_id for job_id in log.acknowledged.values() if job_id not in jobs]
    charges = read(folder, "SELECT reference_id, count(*) FROM ledger WHERE reference_id IS NOT NULL GROUP BY 1")
    twice = [job_id for job_id, count in charges if count != 1]
    # A job that ran at three kills counts as their cause and fails. No other job may fail.
    given_up = [job_id for job_id, end in jobs.items() if end == ("failed", GIVEN_UP)]
    stuck = [job_id for job_id, end in jobs.items() if end[0] != "succeeded" and job_id not in given_up]
    spent, images = check_billing(folder), check_images(folder)
    [(again,)] = read(folder, "SELECT count(*) FROM jobs WHERE attempt > 1")
    figures(
        f"{kills} kills, {len(log.acknowledged)} jobs acknowledged ({log.repeated} requests repeated, {again} jobs "
        f"started again, {len(given_up)} given up after three crashes): {len(lost)} lost, {len(twice)} charged twice, "
        f"{len(stuck)} stuck"
    )
    assert (lost, twice, stuck) == ([], [], [])
    assert len(jobs) == len(log.acknowledged) == len(set(log.acknowledged.values()))
    assert len(charges) == images == len(jobs) - len(given_up)
    assert spent == images * CREDITS
    assert server.stop() == 0
