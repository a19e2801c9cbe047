"""The service under load: pictures per second concat_into the bare engine, accept latency, a long past, honest refusals.

Everything runs as real processes on loopback, on the cores that the engine uses too. Prints tables in Markdown with
machine and date. About eight minutes.

- Throughput: pictures of 512x512 that the server finishes a second, over those that `Painter.paint` alone does (paint,
  safety and PNG in one process, no HTTP, no store), in turns; and the latency of `POST /v1/jobs` meanwhile, with some
  clients who submit as many jobs as the bare engine paints, before a queue of ten thousand.
- A long past: each endpoint concat_into a million finished jobs of ninety days, over the same concat_into the last of those
  days alone, in turns.
- Refusals: clients that come back when they were told to; by how much they were told wrong.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import torch
from uuid_utils import uuid7

from allaprima.bootstrap import open_operator
from allaprima.domain.accounts import KeySpec
from allaprima.settings import Settings
from allaprima.store.sqlite import DATABASE_FILE
from service import cpu_name, server

BODY: dict[str, Any] = {"model": "sketch", "prompt": "a red apple", "image_size": {"width": 512, "height": 512}}
CLIENTS = (1, 8, 64)
QUEUED, PAST, DAYS = 10_000, 1_000_000, 90
SECONDS = 15.0
BARE = """
import sys, time
from dataclasses import replace
from allaprima.engine.safety import SafetyChecker
from allaprima.flux import never_cancelled
from allaprima.request import ImageRequest, StepsOnly
from allaprima.settings import EngineSettings
from allaprima.wiring import build_painter, open_models
settings = EngineSettings()
painter = build_painter(open_models(settings)[0], SafetyChecker.load(), settings)
request = ImageRequest("a red apple", 1, "allaprima/sketch", 512, 512)
for seed in range(5):
    painter.paint(request.changed(seed=seed), never_cancelled, StepsOnly())
began, count = time.perf_counter(), 0
while time.perf_counter() - began < float(sys.argv[1]):
    painter.paint(request.changed(seed=count), never_cancelled, StepsOnly())
    count += 1
print(count / (time.perf_counter() - began))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["throughput", "past", "refusals"])
    parser.add_argument("--clients", type=int, nargs="*", default=CLIENTS, help="of the throughput")
    options = parser.parse_args()
    parts = set(options.parts)
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    if "throughput" in parts:
        throughput(options.clients)
    if "past" in parts:
        long_past()
    if "refusals" in parts:
        refusals()


# Throughput and accept latency --------------------------------------------------------------------------------------


def throughput(numbers: Sequence[int]) -> None:
    """Print pictures per second and accept latency, by number of clients."""
    print(f"\n| clients | pictures/s, bare engine | pictures/s, server | ratio | accept p50, ms | p99, ms |")  # noqa: F541
    print("|---|---|---|---|---|---|")
    for clients in numbers:
        with tempfile.TemporaryDirectory() as folder:
            data_dir = Path(folder)
            key = make_key(data_dir)
            fill_queue(data_dir, QUEUED)
            bare = [bare_rate()]
            with server(data_dir, key=key, ALLAPRIMA_ENGINE__QUEUE_SIZE="1000000") as (address, _, _process):
                time.sleep(3)
                before, began = done(data_dir), time.perf_counter()
                accepted = asyncio.run(submit_for(address, key, clients, SECONDS, bare[0]))
                rate = (done(data_dir) - before) / (time.perf_counter() - began)
            bare.append(bare_rate())
        usual = statistics.mean(bare)
        milliseconds = sorted(1000 * seconds for seconds in accepted)
        p50, p99 = at(milliseconds, 0.5), at(milliseconds, 0.99)
        print(f"| {clients} | {usual:.2f} | {rate:.2f} | {rate / usual:.3f} | {p50:.1f} | {p99:.1f} |", flush=True)


def bare_rate() -> float:
    """Return the pictures per second of the engine alone, in a process of its own."""
    command = [sys.executable, "-c", BARE, str(SECONDS)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def done(data_dir: Path) -> int:
    """Return how many jobs have been painted."""
    [(count,)] = ask(data_dir, "SELECT count(*) FROM usage WHERE state = 'succeeded'")
    return int(count)


async def submit_for(address: str, key: str, clients: int, seconds: float, per_second: float) -> list[float]:
    """Let clients submit jobs one after another, so many a second in all; return the seconds to each acceptance.

    They write bytes that were made before, since what a client library takes from the two cores is not the server's.
    """
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps(BODY).encode()
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    )
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    accepted: list[float] = []
    deadline = time.perf_counter() + seconds

    async def work(number: int) -> None:
        await asyncio.sleep(number / per_second)
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() < deadline:
            began = time.perf_counter()
            writer.write(request)
            headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if " 202 " not in headers.partition("\r\n")[0]:
                raise SystemExit(f"a job was not accepted: {headers}")
            await reader.readexactly(int(headers.partition("content-length: ")[2].partition("\r\n")[0]))
            accepted.append(time.perf_counter() - began)
            await asyncio.sleep(max(0.0, clients / per_second - accepted[-1]))
        writer.close()

    await asyncio.gather(*map(work, range(clients)))
    return accepted


# A long past --------------------------------------------------------------------------------------------------------


def long_past() -> None:
    """Print the time of each endpoint with a million jobs behind it, and with those of the last day."""
    with tempfile.TemporaryDirectory() as folder:
        short, full = Path(folder) / "short", Path(folder) / "full"
        keys = make_key(short), make_key(full)
        began = time.perf_counter()
        fill_past(short, PAST // DAYS, days=1)
        fill_past(full, PAST, DAYS)
        print(f"\n{PAST} past jobs written in {time.perf_counter() - began:.0f} s\n")
        with server(short, key=keys[0]) as (old, _, _a), server(full, key=keys[1]) as (new, _, _b):
            sides = [
                httpx2.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=60)
                for address, key in zip((old, new), keys, strict=True)
            ]
            print("| endpoint | ms, a day's past | ms, a million jobs | ratio |\n|---|---|---|---|")
            for name, method, path, json_body in endpoints():
                compare(name, method, path, json_body, sides)


def endpoints() -> Iterable[tuple[str, str, str, dict[str, Any] | None]]:
    """Yield what is measured: name, method, path, body."""
    small = BODY | {"image_size": {"width": 64, "height": 64}, "num_inference_steps": 1}
    yield "submit", "POST", "/v1/jobs", small
    yield "paint 64x64", "POST", "/v1/images/generations", small
    yield "list jobs", "GET", "/v1/jobs?limit=20", None
    yield "list failed jobs", "GET", "/v1/jobs?limit=20&status=failed", None
    yield "usage of a day", "GET", "/v2/usage?period=24h", None
    yield "logs", "GET", "/v2/logs?period=24h&limit=20", None
    yield "transactions", "GET", "/v2/billing/transactions?limit=20", None
    yield "balance", "GET", "/v2/billing", None
    yield "key", "GET", "/v1/key", None
    yield "models", "GET", "/v1/models", None
    yield "metrics", "GET", "/models/metrics", None


def compare(name: str, method: str, path: str, body: dict[str, Any] | None, sides: list[httpx2.Client]) -> None:
    """Print one endpoint's row: medians of calls in turns."""
    timed: tuple[list[float], list[float]] = ([], [])
    for run in range(60):
        for side, found in zip(sides, timed, strict=True):
            began = time.perf_counter()
            answer = side.request(method, path, json=body)
            seconds = time.perf_counter() - began
            answer.raise_for_status()
            if run >= 10:
                found.append(1000 * seconds)
    old, new = (statistics.median(found) for found in timed)
    print(f"| {name} | {old:.2f} | {new:.2f} | {new / old:.2f} |", flush=True)


# Refusals -----------------------------------------------------------------------------------------------------------


@dataclass
class Refusal:
    """A client that was sent away."""

    promised: float
    actual: float


def refusals() -> None:
    """Print by how much clients were told wrong when to come back."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        key = make_key(data_dir)
        with server(data_dir, key=key, ALLAPRIMA_ENGINE__QUEUE_SIZE="10") as (address, _, _process):
            found = asyncio.run(obedient_clients(address, key, clients=30, wanted=250))
    errors = sorted(abs(refusal.promised - refusal.actual) / refusal.actual for refusal in found)
    waits = sorted(refusal.actual for refusal in found)
    print(
        f"\n{len(errors)} refusals, waits of {waits[0]:.2f} to {waits[-1]:.2f} s: the time to come back was wrong by "
        f"{100 * at(errors, 0.5):.0f} % in the median, {100 * at(errors, 0.9):.0f} % at the 90th percentile"
    )


async def obedient_clients(address: str, key: str, clients: int, wanted: int) -> list[Refusal]:
    """Let clients submit again and again, coming back when they are told to; return the refusals they met.

    Each asks for something of its own, and so is known when it comes back.
    """
    found: list[Refusal] = []
    headers = {"authorization": f"Bearer {key}"}
    deadline = time.perf_counter() + 240
    async with httpx2.AsyncClient(base_url=address, headers=headers, timeout=60) as client:

        async def work(number: int) -> None:
            await asyncio.sleep(number / 10)
            while len(found) < wanted and time.perf_counter() < deadline:
                refused_at = promised = None
                while True:
                    answer = await client.post("/v1/jobs", json=BODY | {"seed": number})
                    if answer.status_code == 202:
                        break
                    wait_s = int(answer.headers["retry-after-ms"]) / 1000
                    if refused_at is None:
                        refused_at, promised = time.perf_counter(), wait_s
                    await asyncio.sleep(wait_s)
                if refused_at is not None and promised is not None:
                    found.append(Refusal(promised, time.perf_counter() - refused_at))

        await asyncio.gather(*(work(number) for number in range(clients)))
    # The first were told before anything was measured.
    return found[clients:]


# Data folders -------------------------------------------------------------------------------------------------------


def make_key(data_dir: Path) -> str:
    """Return a key of a new data folder."""

    async def create() -> str:
        async with open_operator(Settings(store={"data_dir": data_dir})) as operator:
            _, key = await operator.keys.create(KeySpec(name="load"))
            assert key is not None  # it is new
            return key

    return asyncio.run(create())


def ask(data_dir: Path, statement: str) -> list[tuple[Any, ...]]:
    """Ask a data folder's database."""
    with closing(sqlite3.connect(f"file:{data_dir / DATABASE_FILE}?mode=ro", uri=True, timeout=60)) as raw:
        return raw.execute(statement).fetchall()


def fill_queue(data_dir: Path, count: int) -> None:
    """Write queued jobs as the service would have."""
    [(key_id, account_id)] = ask(data_dir, "SELECT id, account_id FROM keys")
    request = json.dumps(
        {"prompt": "a red apple", "seed": 1, "model": "allaprima/sketch", "width": 512, "height": 512, "steps": 4,
         "count": 1, "check_safety": True, "image_format": "png"}
    )  # fmt: skip
    terms = json.dumps({"model": "allaprima/sketch"})
    now = time.time()
    with closing(sqlite3.connect(data_dir / DATABASE_FILE)) as raw, raw:
        raw.executemany(
            "INSERT INTO jobs (id, account_id, key_id, state, request, terms, created_at, turn, predicted_s)"
            " VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, 0.2)",
            ((str(uuid7()), account_id, key_id, request, terms, now, 0.2 * number) for number in range(count)),
        )


def fill_past(data_dir: Path, count: int, days: int) -> None:
    """Write finished jobs of the last days, with their usage and their bill."""
    [(key_id, account_id)] = ask(data_dir, "SELECT id, account_id FROM keys")
    request = json.dumps(
        {"prompt": "a red apple", "seed": 1, "model": "allaprima/sketch", "width": 512, "height": 512, "steps": 4,
         "count": 1, "check_safety": True, "image_format": "png"}
    )  # fmt: skip
    terms, result = json.dumps({"model": "allaprima/sketch"}), json.dumps({"warnings": []})
    start = time.time() - days * 86_400
    step = days * 86_400 / count
    with closing(sqlite3.connect(data_dir / DATABASE_FILE)) as raw, raw:
        raw.execute("PRAGMA synchronous=OFF")
        rows = [(past_id(start + step * number), start + step * number, number % 10) for number in range(count)]
        raw.executemany(
            "INSERT INTO jobs (id, account_id, key_id, state, request, terms, created_at, started_at, finished_at,"
            " result, attempt, error_code) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?)",
            (
                (job_id, account_id, key_id, "succeeded" if kind else "failed", request, terms, at_s, at_s, at_s,
                 result if kind else None, None if kind else "generation_failed")
                for job_id, at_s, kind in rows
            ),
        )  # fmt: skip
        raw.executemany(
            "INSERT INTO usage (job_id, account_id, key_id, model, images, megapixels, credits, created_at, slot,"
            " state)"
            " VALUES (?, ?, ?, 'allaprima/sketch', ?, 0.26, 0, ?, ?, ?)",
            (
                (job_id, account_id, key_id, int(kind > 0), at_s, at_s // 900 * 900, "succeeded" if kind else "failed")
                for job_id, at_s, kind in rows
            ),
        )
        raw.execute(
            "INSERT INTO usage_slots (account_id, slot, key_id, model, succeeded, failed, charged, images, megapixels,"
            " credits) SELECT account_id, slot, key_id, model, sum(images), sum(1 - images), sum(images), sum(images),"
            " 0.26 * sum(images), 0 FROM usage GROUP BY 1, 2, 3, 4"
        )
        raw.execute(
            "INSERT INTO ledger (id, account_id, created_at, direction, type, credits, model, reference_id, images)"
            " SELECT job_id, account_id, created_at, 'CHARGE', 'MODEL_USAGE', 0, model, job_id, 1 FROM usage"
            " WHERE images > 0"
        )


def past_id(at_s: float) -> str:
    """Return an id as it would have been made then."""
    milliseconds = f"{int(at_s * 1000):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}{str(uuid7())[13:]}"


def at(ordered: list[float], share: float) -> float:
    """Return a quantile of sorted values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    main()
