"""Latency and memory: cold `generate`, seconds per image by size, server overhead, peak memory.

Real processes on loopback, one request at a time. Overhead is the time of a whole HTTP request minus
its `timings.inference`: PNG, store, commits and HTTP. Prints a table in Markdown with machine and date.
"""

import argparse
import datetime as dt
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import torch

ALLAPRIMA = (sys.executable, "-m", "allaprima")
SIZES = ((64, 64), (256, 256), (512, 512), (1024, 768), (1440, 512), (1536, 1536))
PROMPT = "a t-rex on a beach"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="runs of each cold start and of each size")
    parser.add_argument("--requests", type=int, default=100, help="requests for the overhead")
    options = parser.parse_args()
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    print("\n| figure | value |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        cold = [cold_generate(Path(folder)) for _ in range(options.runs)]
        print(f"| cold `generate` at 512x512, seconds, median of {options.runs} | {statistics.median(cold):.2f} |")
        with server(Path(folder) / "data") as (address, key, process):
            client = httpx2.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=300)
            for width, height in SIZES:
                ask(client, width, height)
                seconds = [ask(client, width, height)[0] for _ in range(options.runs)]
                print(f"| seconds at {width}x{height}, 4 steps, whole request | {statistics.median(seconds):.3f} |")
            for width, height in ((512, 512), (1024, 768)):
                timed = [ask(client, width, height) for _ in range(options.requests)]
                overhead = spread([whole - inference for whole, inference, _ in timed])
                print(f"| overhead at {width}x{height}, ms, p50 / p99 of {len(timed)} | {overhead} |")
            encoding = spread([encode for _, _, encode in timed])
            print(f"| peak memory of the server (VmHWM), MiB | {peak_mib(process.pid):.0f} |")
            # Parts of the overhead. They come last, since `versus.py` compares rows by their number.
            print(f"| encoding of the PNG at 1024x768, ms, p50 / p99 | {encoding} |")
            print(f"| flush of 4 kB to the disk of the data folder, ms, p50 / p99 | {spread(flushes(Path(folder)))} |")


def cpu_name() -> str:
    """Return the processor's name."""
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def cold_generate(folder: Path) -> float:
    """Return the seconds of one whole `allaprima generate` process."""
    started = time.perf_counter()
    command = (*ALLAPRIMA, "generate", PROMPT, "-o", str(folder / "cold.png"), "--size", "512x512", "--seed", "1")
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


@contextmanager
def server(
    data_dir: Path, *options: str, key: str = "", **settings: str
) -> Iterator[tuple[str, str, "subprocess.Popen[str]"]]:
    """Run a server; yield its address, a key and its process, once its models are loaded.

    options: of the command. key: a key in the data folder; without one the folder must be empty. settings: environment
    variables.
    """
    command = (*ALLAPRIMA, "serve", "--port", "0", "--data-dir", str(data_dir), *options)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | settings)
    assert process.stderr is not None
    try:
        address = ""
        while not (address and key):
            line = process.stderr.readline()
            if not line:
                raise RuntimeError("the server did not start")
            address = found[0] if (found := re.search(r"http://[\d.]+:\d+", line)) else address
            key = found[0] if (found := re.search(r"ap_\w+", line)) else key
        # One client: creating one for every request takes a third of a core.
        with httpx2.Client(base_url=address, timeout=60) as client:
            while client.get("/ready").status_code != 200:
                time.sleep(0.05)
        yield address, key, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def spread(seconds: list[float]) -> str:
    """Return the median and the 99th percentile of some seconds, in milliseconds."""
    ordered = sorted(1000 * one for one in seconds)
    return f"{ordered[len(ordered) // 2]:.1f} / {ordered[int(0.99 * (len(ordered) - 1))]:.1f}"


def flushes(folder: Path, count: int = 200) -> list[float]:
    """Return the seconds of each flush of a file that grows by 4 kB."""
    found = []
    with (folder / "flushed").open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            found.append(time.perf_counter() - began)
    return found


def ask(client: httpx2.Client, width: int, height: int) -> tuple[float, float, float]:
    """Generate one image; return the seconds of the whole request, of its inference and of its encoding."""
    body = {"prompt": PROMPT, "model": "allaprima/sketch", "image_size": {"width": width, "height": height}}
    started = time.perf_counter()
    response = client.post(
        "/v1/images/generations", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    whole = time.perf_counter() - started
    answer: dict[str, Any] = response.raise_for_status().json()
    return whole, float(answer["timings"]["inference"]), float(answer["timings"]["encode"])


def peak_mib(pid: int) -> float:
    """Return the largest resident memory of a process so far, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


if __name__ == "__main__":
    main()
