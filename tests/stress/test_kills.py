"""Kills of the server at random times: no acknowledged job is lost, charged twice or stuck."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from allaprima.service.jobs.queue_monitor import MAX_CRASHES
from tests.acceptance.conftest import Serve
from tests.acceptance.processes import Server, allaprima
from tests.stress.conftest import CREDITS, PRICE, SMALL
from tests.stress.deployments import Deployment, Folder, first_key, postgres_and_bucket
from tests.stress.request_log import RequestLog, check_billing, check_images, wait_until_done

#: Kills, and those at full length by the number of servers.
SHORT, LONG = 4, {1: 200, 2: 300}
GIVEN_UP = f"the server crashed {MAX_CRASHES} times while it generated this job"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(params=["folder", "postgres and bucket"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    if request.param == "folder":
        yield Folder(tmp_path / "data")
    else:
        with postgres_and_bucket(tmp_path) as found:
            yield found


@pytest.mark.timeout(7200)
def test_kills_at_random_times_lose_no_job(
    serve: Serve, deployment: Deployment, tmp_path: Path, full: bool, figures: Callable[[str], None]
) -> None:
    chance = random.Random(5)
    ports = [free_port() for _ in range(deployment.servers)]

    def start(number: int) -> Server:
        name = "data" if number == 0 else f"data-{number}"
        return serve(tmp_path / name, "--port", ports[number], **SMALL, **PRICE, **deployment.settings)

    servers = [start(number) for number in range(deployment.servers)]
    key = first_key(tmp_path, deployment, servers[0].keys)
    credit = ("accounts", "credit", "default", "1000", "--data-dir", tmp_path / "data")
    assert allaprima(*credit, folder=tmp_path, **deployment.settings).returncode == 0
    log = RequestLog([server.url for server in servers], key)
    kills = LONG[deployment.servers] if full else SHORT
    with log.submitting(threads=2):
        for number in range(kills):
            time.sleep(chance.uniform(0.0, 1.0))
            victim = chance.randrange(deployment.servers)
            servers[victim].kill()
            deployment.disturb((number + 1) / kills)
            servers[victim] = start(victim)
    wait_until_done(deployment.read)
    jobs = {row[0]: row[1:] for row in deployment.read("SELECT id, state, error_message FROM jobs")}
    lost = [job_id for job_id in log.acknowledged.values() if job_id not in jobs]
    charges = deployment.read("SELECT reference_id, count(*) FROM ledger WHERE reference_id IS NOT NULL GROUP BY 1")
    twice = [job_id for job_id, count in charges if count != 1]
    # A job that ran at three kills counts as their cause and fails. No other job may fail.
    given_up = [job_id for job_id, end in jobs.items() if end == ("failed", GIVEN_UP)]
    stuck = [job_id for job_id, end in jobs.items() if end[0] != "succeeded" and job_id not in given_up]
    spent, images = check_billing(deployment.read), check_images(deployment)
    [(again,)] = deployment.read("SELECT count(*) FROM jobs WHERE attempt > 1")
    figures(
        f"{kills} kills of {deployment.servers} servers, {len(log.acknowledged)} jobs acknowledged ({log.repeated} "
        f"requests repeated, {again} jobs started again, {len(given_up)} given up after three crashes): {len(lost)} "
        f"lost, {len(twice)} charged twice, {len(stuck)} stuck, {images} images, all with the bytes of their hash, "
        f"{deployment.objects() - images} without a row"
    )
    assert (lost, twice, stuck) == ([], [], [])
    assert len(jobs) == len(log.acknowledged) == len(set(log.acknowledged.values()))
    assert len(charges) == images == len(jobs) - len(given_up)
    assert spent == images * CREDITS
    assert [server.stop() for server in servers] == [0] * len(servers)
