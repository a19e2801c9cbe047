"""Real servers with images in a bucket: refused starts, a start while the bucket is away, and a kill after a put."""

import asyncio
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from allaprima.domain.bucket import parse_bucket
from allaprima.store.images import ImageRepository
from allaprima.store.objects.bucket import BucketObjectStore
from allaprima.store.sqlite import open_sqlite
from tests.acceptance.conftest import Serve
from tests.acceptance.processes import LIMIT_S, Server, allaprima, environment
from tests.fake_s3 import bucket_that_answers
from tests.seaweed import CREDENTIALS, READER, Seaweed
from tests.stress.conftest import BODY, CREDITS, PRICE, SMALL
from tests.tcp_gate import Gate
from tests.waiting import until

pytestmark = pytest.mark.timeout(900)

SETTING = "ALLAPRIMA_STORE__BUCKET"


def start(folder: Path, url: str, credentials: dict[str, str]) -> "subprocess.Popen[str]":
    """Start a server that may be refused."""
    command = [sys.executable, "-m", "allaprima", "serve", "--port", "0", "--data-dir", str(folder / "data")]
    folder.mkdir()
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(**credentials, **{SETTING: url}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_unusable_bucket_refuses_start_in_one_sentence_without_secrets(seaweed: Seaweed, tmp_path: Path) -> None:
    url = seaweed.address()
    where = f"{SETTING}: could not write an object in the bucket images at {seaweed.endpoint}"
    wrong = CREDENTIALS | {"AWS_SECRET_ACCESS_KEY": "wrong-and-long"}
    with bucket_that_answers(404, "NoSuchBucket") as missing:
        gone = f"s3://photos?endpoint={missing.address.endpoint}&region=eu"
        cases = [
            (url, wrong, f"{where}: the secret key is wrong; see AWS_SECRET_ACCESS_KEY"),
            (url, READER, f"{where}: the credentials lack the permission"),
            (gone, CREDENTIALS, f"bucket photos at {missing.address.endpoint}: there is no such bucket"),
        ]
        # At the same time, because each imports torch first.
        servers = [start(tmp_path / f"{number}", case[0], case[1]) for number, case in enumerate(cases)]
        for server, (_, credentials, message) in zip(servers, cases, strict=True):
            output, errors = server.communicate(timeout=LIMIT_S)
            *_, line = errors.splitlines()
            assert (server.returncode, output) == (2, ""), errors
            assert line.startswith(f"error: {SETTING}: ")
            assert line.endswith(message)
            assert "Traceback" not in errors
            assert credentials["AWS_SECRET_ACCESS_KEY"] not in errors


@pytest.fixture
def gate(seaweed: Seaweed) -> Iterator[Gate]:
    """The only way to the bucket for the servers of a test."""
    made = Gate(seaweed.endpoint)
    yield made
    made.close()


def submit(server: Server, key: str) -> str:
    """Submit a job and return its id."""
    answer = httpx2.post(f"{server.url}/v1/jobs", headers={"authorization": f"Bearer {key}"}, json=BODY)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def succeeded(server: Server, key: str, job_id: str) -> dict[str, Any]:
    """Wait until a job has ended, and return it."""

    def ended() -> dict[str, Any] | None:
        headers = {"authorization": f"Bearer {key}"}
        job: dict[str, Any] = httpx2.get(f"{server.url}/v1/jobs/{job_id}", headers=headers).raise_for_status().json()
        return None if job["status"] in ("queued", "running") else job

    job = until(ended, "the job's end")
    assert job["status"] == "succeeded", job
    return job


def test_server_starts_while_the_bucket_is_away_and_stores_images_when_it_answers(
    serve: Serve, tmp_path: Path, seaweed: Seaweed, gate: Gate
) -> None:
    url = seaweed.address().replace(seaweed.endpoint, gate.endpoint)
    server = serve(tmp_path / "data", **{SETTING: url}, **CREDENTIALS, **SMALL)
    assert (
        f"{SETTING}: could not write an object in the bucket images at {gate.endpoint}: nothing answers at its "
        "address; images wait until the bucket answers"
    ) in server.output
    job_id = submit(server, server.key)
    gate.open()
    [image] = succeeded(server, server.key, job_id)["result"]["images"]
    assert httpx2.get(image["url"]).status_code == 200
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in server.output


def test_kill_between_put_and_commit_leaves_an_orphan_that_the_sweep_removes(
    serve: Serve, tmp_path: Path, seaweed: Seaweed, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    direct = seaweed.address()
    settings = {SETTING: direct.replace(seaweed.endpoint, gate.endpoint)} | CREDENTIALS | SMALL | PRICE
    objects, data_dir = BucketObjectStore(parse_bucket(direct)), tmp_path / "data"
    gate.open()
    server = serve(data_dir, **settings)
    key = server.key
    credited = allaprima("accounts", "credit", "default", "1000", "--data-dir", data_dir, folder=tmp_path)
    assert credited.returncode == 0, credited.stderr
    gate.holds_answers = True
    job_id = submit(server, key)
    orphans = until(lambda: names(objects) or None, "the object")
    server.kill()
    gate.holds_answers = False
    server = serve(data_dir, **settings)
    succeeded(server, key, job_id)
    assert server.query("SELECT reference_id, credits FROM ledger WHERE direction = 'CHARGE'") == [(job_id, CREDITS)]
    [(kept, digest)] = server.query("SELECT object_name, sha256 FROM images")
    assert server.stop() == 0
    assert names(objects) == {kept, *orphans}
    # A young object may be of a job that commits soon.
    assert asyncio.run(sweep(data_dir, objects, after_s=0)) == 0
    assert asyncio.run(sweep(data_dir, objects, after_s=objects.orphan_age.total_seconds() + 60)) == len(orphans)
    assert names(objects) == {kept}
    assert hashlib.sha256(asyncio.run(objects.get(kept)) or b"").hexdigest() == digest


def names(objects: BucketObjectStore) -> set[str]:
    """Return the names of all objects of images."""

    async def listed() -> set[str]:
        return {name async for page in objects.pages() for name, _ in page if not name.endswith(".check")}

    return asyncio.run(listed())


async def sweep(data_dir: Path, objects: BucketObjectStore, *, after_s: float) -> int:
    """Sweep as a server does that long from now; return the number of removed objects."""
    database = await open_sqlite(data_dir)
    try:
        return await ImageRepository(database, objects).sweep(time.time() + after_s)
    finally:
        await database.close()
