"""The bucket's server is killed under load and started again: no job fails, and images are stored soon after."""

import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.conftest import Serve
from tests.seaweed import CREDENTIALS, Seaweed
from tests.stress.conftest import BODY, SMALL
from tests.waiting import until

#: Seconds without the bucket.
SHORT_S, LONG_S = 2.0, 30.0
#: Longest time from the return of the bucket to the first image, in seconds.
FIRST_IMAGE_S = 5.0
JOBS = 12


@pytest.mark.timeout(900)
def test_outage_of_the_bucket_fails_no_job_and_the_first_image_follows_its_return(
    serve: Serve, tmp_path: Path, seaweed: Seaweed, full: bool, figures: Callable[[str], None]
) -> None:
    away_s = LONG_S if full else SHORT_S
    server = serve(tmp_path / "data", ALLAPRIMA_STORE__BUCKET=seaweed.address(), **CREDENTIALS, **SMALL)
    headers = {"authorization": f"Bearer {server.key}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as client:

        def jobs() -> list[str]:
            """Return the states of all jobs."""
            return [job["status"] for job in client.get("/v1/jobs?limit=100").raise_for_status().json()["data"]]

        seaweed.kill()
        began = time.monotonic()
        for _ in range(JOBS):
            assert client.post("/v1/jobs", json=BODY).status_code == 202
        while time.monotonic() < began + away_s:
            # Whatever was stored before the kill, nothing is stored now.
            assert set(jobs()) <= {"queued", "running"}
            time.sleep(0.2)
        seaweed.start()
        returned = time.monotonic()
        until(lambda: "succeeded" in jobs() or None, "the first image")
        first_s = time.monotonic() - returned
        until(lambda: {"queued", "running"}.isdisjoint(jobs()) or None, "the jobs' ends")
        failed = JOBS - jobs().count("succeeded")
        figures(f"bucket away for {away_s:.0f} s: {failed} of {JOBS} jobs failed, first image after {first_s:.1f} s")
        assert (failed, len(jobs())) == (0, JOBS)
        assert first_s <= FIRST_IMAGE_S
        images = client.get("/v1/images?limit=100").raise_for_status().json()["data"]
        # The server compares each file with its hash.
        assert [httpx2.get(image["url"]).status_code for image in images] == [200] * JOBS
