"""The service under load: throughput, accept latency, a long history, and the error of `Retry-After`.

Real processes on loopback; the clients run on the same cores as the engine. Prints tables in Markdown with machine and
date. Takes about eight minutes.

- Throughput: images of 512x512 that the server finishes per second, divided by those of `Generator.generate` alone
  (generation, safety and PNG in one process, no HTTP, no store), measured alternately; and the latency of
  `POST /v1/jobs` meanwhile. The clients submit as many jobs as the bare engine generates, and the queue already has ten
  thousand.
- A long history: the latency of each endpoint with a million finished jobs of ninety days, divided by that with the
  jobs of one day, measured alternately.
- Refusals: clients retry at their `Retry-After`; the error of that estimate.
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

from allaprima.bootstrap.operator import open_operator
from allaprima.domain.accounts import KeySpec
from allaprima.settings import Settings
from allaprima.store.data_folder import DATABASE_FILE
from service import cpu_name, server

BODY: dict[str, Any] = {"model": "sketch", "prompt": "a red apple", "image_size": {"width": 512, "height": 512}}
CLIENTS = (1, 8, 64)
PARTS = ("throughput", "history", "refusals")
QUEUED, PAST, DAYS = 10_000, 1_000_000, 90
SECONDS = 15.0
RESULT = {
    "model": "allaprima/sketch",
    "revision": "0" * 16,
    "precision": "bf16",
    "credits": 0,
    "timings": {"text": 0.01, "steps": [0.03] * 4, "decode": 0.02, "safety": 0.02, "encode": 0.01},
}
BARE = """
import sys, time
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.progress import StepCallback
from allaprima.engine.build import build_generator
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.flux import never_cancelled
from allaprima.settings import EngineSettings
from allaprima.weights.open import open_models
generator = build_generator(open_models(())[0], SafetyChecker.load(), EngineSettings())
request = GenerationRequest(prompt="a red apple", seed=1, model="allaprima/sketch", width=512, height=512)
for seed in range(5):
    generator.generate(request.changed(seed=seed), never_cancelled, StepCallback())
began, count = time.perf_counter(), 0
while time.perf_counter() - began < float(sys.argv[1]):
    generator.generate(request.changed(seed=count), never_cancelled, StepCallback())
    count += 1
print(count / (time.perf_counter() - began))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--clients", type=int, nargs="*", default=CLIENTS, help="numbers of clients for the throughput")
    options = parser.parse_args()
    parts = set(options.parts)
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    if "throughput" in parts:
        throughput(options.clients)
    if "history" in parts:
        long_history()
    if "refusals" in parts:
        refusals()


# Throughput and accept latency --------------------------------------------------------------------------------------


def throughput(numbers: Sequence[int]) -> None:
    """Print images per second and accept latency, by number of clients."""
    print("\n| clients | images/s, bare engine | images/s, server | ratio | accept p50, ms | p99, ms |")
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
    """Return the images per second of the engine alone, in a process of its own."""
    command = [sys.executable, "-c", BARE, str(SECONDS)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def done(data_dir: Path) -> int:
    """Return how many jobs have succeeded."""
    [(count,)] = ask(data_dir, "SELECT count(*) FROM usage WHERE state = 'succeeded'")
    return int(count)


async def submit_for(address: str, key: str, clients: int, seconds: float, per_second: float) -> list[float]:
    """Let clients submit `per_second` jobs a second in all; return the seconds to each acceptance.

    The clients write prepared bytes, so that the time of a client library does not count.
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


# A long history -----------------------------------------------------------------------------------------------------


def long_history() -> None:
    """Print the latency of each endpoint with a million finished jobs, and with those of the last day."""
    with tempfile.TemporaryDirectory() as folder:
        short, full = Path(folder) / "short", Path(folder) / "full"
        keys = make_key(short), make_key(full)
        began = time.perf_counter()
        fill_history(short, PAST // DAYS, days=1)
        fill_history(full, PAST, DAYS)
        print(f"\n{PAST} past jobs written in {time.perf_counter() - began:.0f} s\n")
        with server(short, key=keys[0]) as (old, _, _a), server(full, key=keys[1]) as (new, _, _b):
            sides = [
                httpx2.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=60)
                for address, key in zip((old, new), keys, strict=True)
            ]
            print("| endpoint | ms, a day of jobs | ms, a million jobs | ratio |\n|---|---|---|---|")
            for name, method, path, json_body in endpoints():
                compare(name, method, path, json_body, sides)


def endpoints() -> Iterable[tuple[str, str, str, dict[str, Any] | None]]:
    """Yield the measured requests: name, method, path, body."""
    small = BODY | {"image_size": {"width": 64, "height": 64}, "num_inference_steps": 1}
    yield "submit", "POST", "/v1/jobs", small
    yield "generate 64x64", "POST", "/v1/images/generations", small
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
    """Print one endpoint's row: medians of alternate calls."""
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
    """A refused client: the seconds of its first `Retry-After`, and the seconds until it was accepted."""

    estimated: float
    actual: float


def refusals() -> None:
    """Print the error of `Retry-After` for clients that obey it."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        key = make_key(data_dir)
        with server(data_dir, key=key, ALLAPRIMA_ENGINE__QUEUE_SIZE="10") as (address, _, _process):
            found = asyncio.run(obedient_clients(address, key, clients=30, wanted=250))
    errors = sorted(abs(refusal.estimated - refusal.actual) / refusal.actual for refusal in found)
    waits = sorted(refusal.actual for refusal in found)
    print(
        f"\n{len(errors)} refusals, waits of {waits[0]:.2f} to {waits[-1]:.2f} s: error of Retry-After "
        f"{100 * at(errors, 0.5):.0f} % in the median, {100 * at(errors, 0.9):.0f} % at the 90th percentile"
    )


async def obedient_clients(address: str, key: str, clients: int, wanted: int) -> list[Refusal]:
    """Let clients submit jobs and obey each `Retry-After`, until `wanted` were refused; return the refusals."""
    found: list[Refusal] = []
    headers = {"authorization": f"Bearer {key}"}
    deadline = time.perf_counter() + 240
    async with httpx2.AsyncClient(base_url=address, headers=headers, timeout=60) as client:

        async def work(number: int) -> None:
            await asyncio.sleep(number / 10)
            while len(found) < wanted and time.perf_counter() < deadline:
                refused_at = estimated = None
                while True:
                    answer = await client.post("/v1/jobs", json=BODY | {"seed": number})
                    if answer.status_code == 202:
                        break
                    wait_s = int(answer.headers["retry-after-ms"]) / 1000
                    if refused_at is None:
                        refused_at, estimated = time.perf_counter(), wait_s
                    await asyncio.sleep(wait_s)
                if refused_at is not None and estimated is not None:
                    found.append(Refusal(estimated, time.perf_counter() - refused_at))

        await asyncio.gather(*(work(number) for number in range(clients)))
    # The service had measured nothing when it gave the first estimates.
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
    """Query a data folder's database."""
    with closing(sqlite3.connect(f"file:{data_dir / DATABASE_FILE}?mode=ro", uri=True, timeout=60)) as raw:
        return raw.execute(statement).fetchall()


def fill_queue(data_dir: Path, count: int) -> None:
    """Write queued jobs as the service writes them."""
    [(key_id, account_id)] = ask(data_dir, "SELECT id, account_id FROM api_keys")
    request = json.dumps(
        {"prompt": "a red apple", "seed": 1, "model": "allaprima/sketch", "width": 512, "height": 512, "steps": 4,
         "count": 1, "check_safety": True, "image_format": "png"}
    )  # fmt: skip
    options = json.dumps({"model": "allaprima/sketch"})
    now = time.time()
    with closing(sqlite3.connect(data_dir / DATABASE_FILE)) as raw, raw:
        raw.executemany(
            "INSERT INTO jobs (id, account_id, key_id, state, request, options, created_at, turn, predicted_s, attempt,"
            " crashes, queue, priority, held) VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, 0.2, 0, 0, 0, 1, 0)",
            ((str(uuid7()), account_id, key_id, request, options, now, 0.2 * number) for number in range(count)),
        )


def fill_history(data_dir: Path, count: int, days: int) -> None:
    """Write finished jobs of the last days, with their usage and their ledger."""
    [(key_id, account_id)] = ask(data_dir, "SELECT id, account_id FROM api_keys")
    request = json.dumps(
        {"prompt": "a red apple", "seed": 1, "model": "allaprima/sketch", "width": 512, "height": 512, "steps": 4,
         "count": 1, "check_safety": True, "image_format": "png"}
    )  # fmt: skip
    options, result = json.dumps({"model": "allaprima/sketch"}), json.dumps(RESULT)
    start = time.time() - days * 86_400
    step = days * 86_400 / count
    with closing(sqlite3.connect(data_dir / DATABASE_FILE)) as raw, raw:
        raw.execute("PRAGMA synchronous=OFF")
        rows = [(past_id(start + step * number), start + step * number, number % 10) for number in range(count)]
        raw.executemany(
            "INSERT INTO jobs (id, account_id, key_id, state, request, options, created_at, started_at, finished_at,"
            " result, error_code, attempt, crashes, queue, priority, held, turn, predicted_s)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0, 0, 1, 0, 0, 0.2)",
            (
                (job_id, account_id, key_id, "succeeded" if kind else "failed", request, options, at_s, at_s, at_s,
                 result if kind else None, None if kind else "generation_failed")
                for job_id, at_s, kind in rows
            ),
        )  # fmt: skip
        raw.executemany(
            "INSERT INTO usage (job_id, account_id, key_id, model, images, megapixels, credits, created_at, bucket,"
            " state, source, duration_s)"
            " VALUES (?, ?, ?, 'allaprima/sketch', ?, 0.26, 0, ?, ?, ?, 'api', 0.2)",
            (
                (job_id, account_id, key_id, int(kind > 0), at_s, at_s // 900 * 900, "succeeded" if kind else "failed")
                for job_id, at_s, kind in rows
            ),
        )
        raw.execute(
            "INSERT INTO usage_buckets (account_id, start, key_id, model, succeeded, failed, charged, images,"
            " megapixels, credits) SELECT account_id, bucket, key_id, model, sum(images), sum(1 - images), sum(images),"
            " sum(images), 0.26 * sum(images), 0 FROM usage GROUP BY 1, 2, 3, 4"
        )
        raw.execute(
            "INSERT INTO ledger (id, account_id, created_at, direction, type, credits, model, reference_id, images)"
            " SELECT job_id, account_id, created_at, 'CHARGE', 'MODEL_USAGE', 0, model, job_id, 1 FROM usage"
            " WHERE images > 0"
        )


def past_id(at_s: float) -> str:
    """Return a job's id with the time `at_s`."""
    milliseconds = f"{int(at_s * 1000):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}{str(uuid7())[13:]}"


def at(ordered: list[float], share: float) -> float:
    """Return a quantile of sorted values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    main()
