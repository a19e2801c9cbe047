"""The front door under pressure: slow sockets, hanging webhook receivers, and a soak.

Real processes on loopback; the clients run on the same cores as the engine. Prints figures with machine and date.

- Slow sockets: latency of requests while a thousand connections send a byte of their heads now and then, divided by the
  latency without them, measured alternately.
- Webhooks: lag of one account's webhooks, from the end of the job to the receiver, while forty receivers of another
  account hang.
- Soak: requests at full speed; the slope of the memory and the number of descriptors.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import torch

from service import ALLAPRIMA, cpu_name, server

PARTS = ("sockets", "webhooks", "soak")
SOCKETS, RECEIVERS, ROUNDS, REQUESTS = 1000, 40, 6, 60
SMALL: dict[str, Any] = {
    "model": "sketch",
    "prompt": "a red apple",
    "image_size": {"width": 64, "height": 64},
    "num_inference_steps": 1,
}
LARGE: dict[str, Any] = {"model": "sketch", "prompt": "a red apple", "image_size": {"width": 512, "height": 512}}
#: Seconds of the soak during which memory still grows: caches fill.
WARM_UP_S = 300.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the soak")
    options = parser.parse_args()
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    if "sockets" in options.parts:
        asyncio.run(slow_sockets())
    if "webhooks" in options.parts:
        asyncio.run(hanging_receivers())
    if "soak" in options.parts:
        soak(60 * options.minutes)


def at(values: list[float], share: float) -> float:
    """Return a percentile of some values."""
    return sorted(values)[int(share * (len(values) - 1))]


# Slow sockets -------------------------------------------------------------------------------------------------------


async def slow_sockets() -> None:
    """Print the latency of requests with and without a thousand slow connections."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "data") as (address, key, _):
        async with httpx2.AsyncClient(base_url=address, headers={"authorization": f"Bearer {key}"}) as client:
            await latencies(client, "/v1/models", 20)
            free: list[float] = []
            slow: list[float] = []
            for _ in range(ROUNDS):
                free += await latencies(client, "/v1/models", REQUESTS)
                sending = asyncio.create_task(dribble(address))
                await asyncio.sleep(2)
                slow += await latencies(client, "/v1/models", REQUESTS)
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        before, after = 1000 * at(free, share), 1000 * at(slow, share)
        print(
            f"{SOCKETS} slow sockets, {name} of a request: {before:.2f} -> {after:.2f} ms, ratio {after / before:.2f}"
        )


async def latencies(client: httpx2.AsyncClient, path: str, count: int) -> list[float]:
    """Return the seconds of some requests, one after the other."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        (await client.get(path)).raise_for_status()
        found.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    return found


async def dribble(address: str) -> None:
    """Keep a thousand connections that send a byte of a head every second, and open those again that are closed."""
    host, port = address.removeprefix("http://").split(":")

    async def one(number: int) -> None:
        await asyncio.sleep(number / SOCKETS)
        while True:
            _, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
                while not writer.is_closing():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(1)
            except ConnectionError:
                continue
            finally:
                writer.close()

    async with asyncio.TaskGroup() as group:
        for number in range(SOCKETS):
            group.create_task(one(number))


# Webhooks -----------------------------------------------------------------------------------------------------------


class Receiver:
    """A webhook receiver on a port of its own, which answers or hangs."""

    def __init__(self, *, hangs: bool) -> None:
        self._hangs = hangs
        #: When each webhook arrived, unix seconds, by job id.
        self.arrivals: dict[str, float] = {}

    async def open(self) -> str:
        """Listen; return the URL."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if self._hangs:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
            return
        body = json.loads(await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0])))
        self.arrivals[body["data"]["id"]] = time.time()
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


async def hanging_receivers() -> None:
    """Print the lag of one account's webhooks while another's receivers hang."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        settings = {"ALLAPRIMA_WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]'}
        with server(data_dir, **settings) as (address, key, _):
            neighbour = make_account(data_dir)
            async with httpx2.AsyncClient(base_url=address, timeout=60) as client:
                for hanging in (0, RECEIVERS):
                    urls = [await Receiver(hangs=True).open() for _ in range(hanging)]
                    for url in urls:
                        await submit(client, key, url)
                    lags = await neighbours_lags(client, neighbour)
                    p50, p99 = 1000 * at(lags, 0.5), 1000 * at(lags, 0.99)
                    print(f"{hanging} hanging receivers, lag of another account's webhook: {p50:.0f} / {p99:.0f} ms")


async def neighbours_lags(client: httpx2.AsyncClient, key: str) -> list[float]:
    """Return the seconds from the end of each job to its webhook."""
    receiver = Receiver(hangs=False)
    url = await receiver.open()
    jobs = []
    for _ in range(100):
        jobs.append(await submit(client, key, url))
        await asyncio.sleep(0.1)
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            while len(receiver.arrivals) < len(jobs):  # noqa: ASYNC110 - no event reports it
                await asyncio.sleep(0.1)
    lags = []
    for job_id in jobs:
        job = (await client.get(f"/v1/jobs/{job_id}", headers={"authorization": f"Bearer {key}"})).json()
        lags.append(receiver.arrivals.get(job_id, time.time()) - job["finished_at"])
    return lags


async def submit(client: httpx2.AsyncClient, key: str, url: str) -> str:
    """Submit a job with a webhook; return its id."""
    body = SMALL | {"webhook_url": url}
    answer = await client.post("/v1/jobs", json=body, headers={"authorization": f"Bearer {key}"})
    return str(answer.raise_for_status().json()["id"])


def make_account(data_dir: Path) -> str:
    """Create another account while the server runs; return its key."""
    for command in (("accounts", "create", "neighbour"), ("keys", "create", "--account", "neighbour")):
        done = subprocess.run(
            (*ALLAPRIMA, *command, "--data-dir", str(data_dir)), check=True, capture_output=True, text=True
        )
    return done.stdout.split()[-1]


# Soak ---------------------------------------------------------------------------------------------------------------


def soak(seconds: float) -> None:
    """Print the slope of the memory and the range of the descriptors under requests at full speed."""
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "data") as (address, key, process):
        samples: list[tuple[float, float, int]] = []
        began, count, kinds = (
            time.monotonic(),
            0,
            (SMALL, LARGE, SMALL | {"store": False, "response_format": "b64_json"}),
        )
        with httpx2.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
            while (elapsed := time.monotonic() - began) < seconds:
                body = kinds[count % len(kinds)] | {"prompt": f"a red apple {count}", "seed": count}
                client.post("/v1/images/generations", json=body).raise_for_status()
                client.get("/v1/jobs?limit=20").raise_for_status()
                count += 1
                if not samples or elapsed - samples[-1][0] >= 5:
                    samples.append((elapsed, *resources(process.pid)))
    settled = [sample for sample in samples if sample[0] >= min(WARM_UP_S, seconds / 2)]
    slope, noise = trend([one[0] / 3600 for one in settled], [one[1] for one in settled])
    descriptors = [one[2] for one in samples]
    print(
        f"soak of {seconds / 60:.0f} minutes, {count} images: memory {samples[0][1]:.0f} -> {samples[-1][1]:.0f} MB, "
        f"slope {slope:+.1f} MB an hour (standard error {noise:.1f}) after the first {settled[0][0]:.0f} s; "
        f"{min(descriptors)} to {max(descriptors)} descriptors"
    )


def resources(pid: int) -> tuple[float, int]:
    """Return the resident memory of a process in MB, and the number of its descriptors."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def trend(x: list[float], y: list[float]) -> tuple[float, float]:
    """Return the slope of the least-squares line through some points, and its standard error."""
    slope, offset = statistics.linear_regression(x, y)
    mean = statistics.fmean(x)
    rest = sum((b - slope * a - offset) ** 2 for a, b in zip(x, y, strict=True))
    return slope, (rest / max(1, len(x) - 2) / sum((a - mean) ** 2 for a in x)) ** 0.5


if __name__ == "__main__":
    main()
