"""Compare allaprima with diffusers, transformers, OpenVINO and stable-diffusion.cpp: same shapes, weights and threads.

Each part of FLUX.1 is timed for all engines: every engine has a process of its own, which keeps its weights in memory,
and the runs are interleaved, one engine at a time. stable-diffusion.cpp is timed after the others, since together they
do not fit into 24 GB. Prints the medians and their ratios as a table in Markdown, and draws
`docs/benchmarks/peers.svg`.

The files that OpenVINO and stable-diffusion.cpp load are converted first, each in a process of its own that ends before
any engine is loaded, and kept in `build/peers` (7 GB of disk). `pip install -e '.[test,bench,peers]'` installs
the peers; the output names those that are not installed. Takes about an hour and 20 GB of memory.
"""

import argparse
import datetime as dt
import importlib.util
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from engines import CONVERSIONS, ENGINES, FOLDER, PARTS, SLOW, T5_LAYERS, THREADS, convert, serve
from service import cpu_name

OURS = "allaprima"
#: The module that an engine needs, by the prefix of the engine's name.
NEEDED = {"OpenVINO": "openvino", "stable-diffusion.cpp": "stable_diffusion_cpp", "diffusers": "diffusers"}
#: Runs of a slow engine, and the part that it does not run, since one run takes minutes.
SLOW_ROUNDS, TOO_LARGE = 2, "transformer 1024x768"
#: How many of FLUX.1's layers a network has, printed with its table.
NOTES = {
    "transformer": "2 double and 4 single blocks of 19 and 38, modulations included",
    "t5": f"{T5_LAYERS} of 24 layers",
    "decoder": "the whole decoder",
}


def worker_environment() -> dict[str, str]:
    """Return the environment of a process that loads or converts networks."""
    path = os.pathsep.join(filter(None, (".", os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(THREADS)}


class Worker:
    """A process that has one engine loaded, and runs it on request."""

    def __init__(self, engine: str, part: str) -> None:
        self.engine = engine
        self._process = subprocess.Popen(
            (sys.executable, __file__, "--serve", engine, "--part", part),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=worker_environment(),
        )
        self.is_ready = self._read() == "ready"

    def run(self) -> float:
        """Run the part once; return the seconds."""
        assert self._process.stdin
        print("run", file=self._process.stdin, flush=True)
        return float(self._read())

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--part", choices=PARTS, action="append", help="time this part only; can be given several times"
    )
    parser.add_argument("--rounds", type=int, default=7, help="runs of each engine")
    parser.add_argument("--serve", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--convert", choices=CONVERSIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        convert(options.convert)
        return
    if options.serve:
        serve(options.serve, options.part[0])
        return
    print(f"{cpu_name()}, {THREADS} threads, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}\n")
    found = {}
    for part in options.part or PARTS:
        found[part] = measure(part, options.rounds)
        print_table(part, found[part])
    if not options.part:
        draw(found, Path("docs/benchmarks/peers.svg"))


def measure(part: str, rounds: int) -> dict[str, float]:
    """Return each engine's median seconds: the fast engines interleaved, then the slow ones."""
    engines = [engine for engine in ENGINES if can_run(engine, part)]
    failed = convert_files({file for engine in engines for file in ENGINES[engine].files})
    engines = [engine for engine in engines if failed.isdisjoint(ENGINES[engine].files)]
    fast = [engine for engine in engines if not engine.startswith(SLOW)]
    slow = [engine for engine in engines if engine.startswith(SLOW)]
    return interleaved(fast, part, rounds) | interleaved(slow, part, min(rounds, SLOW_ROUNDS))


def convert_files(names: Iterable[str]) -> set[str]:
    """Convert the files that are not there yet, one process at a time; return those that could not be converted."""
    failed = set()
    for name in sorted(names):
        if (FOLDER / name).exists():
            continue
        command = (sys.executable, __file__, "--convert", name)
        done = subprocess.run(command, env=worker_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            failed.add(name)
            print(f"{name}: could not be converted, exit status {done.returncode}\n{done.stderr[-2000:]}")
    return failed


def can_run(engine: str, part: str) -> bool:
    """Return whether an engine is timed on a part. Prints why an engine that has the network is left out."""
    if PARTS[part].network not in ENGINES[engine].networks:
        return False
    missing = [module for begin, module in NEEDED.items() if engine.startswith(begin) and not is_here(module)]
    if missing:
        print(f"{engine}: {missing[0]} is not installed")
    if engine.startswith(SLOW) and part == TOO_LARGE:
        print(f"{engine}: left out, since one run takes minutes")
        return False
    return not missing


def interleaved(engines: list[str], part: str, rounds: int) -> dict[str, float]:
    """Return the median seconds of engines: each is run once a round."""
    workers = [Worker(engine, part) for engine in engines]
    for worker in workers:
        if not worker.is_ready:
            print(f"{worker.engine}: could not be run")
    workers = [worker for worker in workers if worker.is_ready]
    seconds: dict[str, list[float]] = {worker.engine: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            seconds[worker.engine].append(worker.run())
    for worker in workers:
        worker.end()
    return {engine: statistics.median(runs) for engine, runs in seconds.items()}


def is_here(module: str) -> bool:
    """Return whether a module is installed."""
    return importlib.util.find_spec(module) is not None


def print_table(part: str, seconds: dict[str, float]) -> None:
    """Print one part's table: seconds, and their ratio to those of each precision of allaprima."""
    ours = [engine for engine in seconds if engine.startswith(OURS)]
    print(f"**{part}** ({NOTES[PARTS[part].network]})\n")
    print(f"| engine | seconds | {' | '.join(f'of {engine}' for engine in ours)} |\n|---{'|---' * (len(ours) + 1)}|")
    for engine, median in sorted(seconds.items(), key=lambda item: item[1]):
        ratios = " | ".join(f"{median / seconds[mine]:.2f}" for mine in ours)
        print(f"| {engine} | {median:.2f} | {ratios} |")
    print(flush=True)


def draw(found: dict[str, dict[str, float]], path: Path) -> None:
    """Draw a bar for each engine's seconds, and for each part a panel with a scale of its own."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "peers"
    from matplotlib import pyplot as plt

    heights = [len(seconds) for seconds in found.values()]
    figure, panels = plt.subplots(
        len(found), 1, figsize=(8, 0.32 * sum(heights) + 1.2 * len(found)), height_ratios=heights
    )
    for axes, (part, seconds) in zip(panels, found.items(), strict=True):
        engines = sorted(seconds, key=seconds.__getitem__, reverse=True)
        colours = ["#c2410c" if engine.startswith(OURS) else "#94a3b8" for engine in engines]
        bars = axes.barh(engines, [seconds[engine] for engine in engines], color=colours)
        axes.bar_label(bars, fmt="%.2f s", padding=3)
        axes.set_title(part, loc="left", fontsize=11, fontweight="bold")
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_xticks([])
        axes.margins(x=0.15)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
