"""A real server whose system's clock is set while it runs: nothing expires early, and no client is shut out."""

import time
from functools import partial
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.conftest import Serve, serve
from tests.acceptance.preload import build_library
from tests.acceptance.processes import Server
from tests.waiting import until

__all__ = ["serve"]

#: Adds the seconds in the file $CLOCK_FILE to the unix time.
SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int status = real(id, now);
  const char *path = getenv("CLOCK_FILE");
  FILE *file = id == CLOCK_REALTIME && path ? fopen(path, "r") : NULL;
  if (file) {
    long seconds = 0;
    if (fscanf(file, "%ld", &seconds) == 1) now->tv_sec += seconds;
    fclose(file);
  }
  return status;
}
"""
BODY = {"model": "flux/schnell", "prompt": "a boat", "size": "64x64", "num_inference_steps": 1}
DAY = 86_400
CHANGE = "the system's clock was set"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for LD_PRELOAD that sets the clock of one process."""
    return build_library(tmp_path_factory.mktemp("preload"), SOURCE)


def more_than(server: Server, seen: int) -> bool | None:
    """Return True once the server has logged another change of the clock."""
    return server.output.count(CHANGE) > seen or None


def test_nothing_expires_when_the_clock_is_set(serve: Serve, library: Path, tmp_path: Path) -> None:
    clock = tmp_path / "seconds"
    clock.write_text("0")
    settings = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(clock), "ALLAPRIMA_STORE__SWEEP_EVERY_S": "0.2"}
    server = serve(tmp_path / "data", **settings)
    client = httpx2.Client(base_url=server.url, headers={"authorization": f"Bearer {server.key}"}, timeout=60)
    claim = {"idempotency-key": "one"}
    first = client.post("/v1/images/generations", json=BODY, headers=claim).json()
    link = first["images"][0]["url"]
    for seconds in (3600, -3600, 400 * DAY, -400 * DAY):
        seen = server.output.count(CHANGE)
        clock.write_text(str(seconds))
        until(partial(more_than, server, seen), "the change of the clock")
        assert abs(float(client.get("/v1/jobs").json()["data"][0]["created_at"]) - time.time()) < 500 * DAY
        assert client.get(link).status_code == 200
        replayed = client.post("/v1/images/generations", json=BODY, headers=claim)
        assert (replayed.headers["idempotent-replayed"], replayed.json()["images"][0]["url"]) == ("true", link)
        made = client.post("/v1/images/generations", json=BODY).json()
        assert abs(made["created"] - seconds - time.time()) < 60
        job = client.post("/v1/jobs", json=BODY, headers={"x-start-deadline": "60"}).json()
        assert "event: succeeded" in client.get(f"/v1/jobs/{job['id']}/events").text
    # The same clock, and so the same deadlines, after another start.
    assert server.stop() == 0
    clock.write_text("0")
    key, server = server.key, serve(tmp_path / "data", **settings)
    assert client.get(link.replace(link.partition("/files/")[0], server.url)).status_code == 200
    headers = {"authorization": f"Bearer {key}", **claim}
    again = client.post(f"{server.url}/v1/images/generations", json=BODY, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    client.close()
