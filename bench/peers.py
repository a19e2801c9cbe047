"""allaprima against diffusers, transformers, OpenVINO and stable-diffusion.cpp: the same shapes, numbers and threads.

Each part of FLUX.1 is timed for all engines in one run: every engine has a process of its own, keeps its weights, and
the runs are interleaved, one engine at a time; stable-diffusion.cpp's come behind the others', since together they do
not fit into 24 GB. Prints the medians and their ratios as a table in Markdown, and draws `docs/benchmarks/peers.svg`.
`pip install -e '.[test,bench,peers]'` installs what it compares; what is not installed is left out in words. Takes
about half an hour, 20 GB of memory and 5 GB of disk (`build/peers`).
"""

import argparse
import datetime as dt
import importlib.util
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from engines import ENGINES, PARTS, SLOW, T5_LAYERS, THREADS, serve
from service import cpu_name

OURS = "allaprima"
#: What must be installed for an engine, by how its name begins.
NEEDED = {"OpenVINO": "openvino", "stable-diffusion.cpp": "stable_diffusion_cpp", "diffusers": "diffusers"}
#: Runs of an engine that is slow; it is not timed where a run takes minutes.
FEW, TOO_LARGE = 2, "transformer 1024x768"
#: The networks' layers beside those of the whole FLUX.1, said in the table.
NOTES = {
    "transformer": "2 double and 4 single blocks of 19 and 38, modulations included",
    "t5": f"{T5_LAYERS} of 24 layers",
    "decoder": "the whole decoder",
}


class Worker:
    """A process that has one engine, and runs it when told."""

    def __init__(self, engine: str, part: str) -> None:
        self.engine = engine
        environment = os.environ | {"PYTHONPATH": "tests/flux", "OMP_NUM_THREADS": str(THREADS)}
        self._process = subprocess.Popen(
            (sys.executable, __file__, "--serve", engine, "--part", part),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.is_ready = self._read() == "ready"

    def run(self) -> float:
        """Do the part once; return the seconds."""
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
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each engine")
    parser.add_argument("--serve", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
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
    """Return each engine's median seconds: the quick ones interleaved, then the slow ones."""
    engines = [engine for engine in ENGINES if can_run(engine, part)]
    quick = [engine for engine in engines if not engine.startswith(SLOW)]
    slow = [engine for engine in engines if engine.startswith(SLOW)]
    return interleaved(quick, part, rounds) | interleaved(slow, part, min(rounds, FEW))


def can_run(engine: str, part: str) -> bool:
    """Say whether an engine is timed on a part, and say aloud what of it is missing."""
    if PARTS[part].network not in ENGINES[engine][1]:
        return False
    missing = [module for begin, module in NEEDED.items() if engine.startswith(begin) and not is_here(module)]
    if missing:
        print(f"{engine}: {missing[0]} is not installed")
    if engine.startswith(SLOW) and part == TOO_LARGE:
        print(f"{engine}: left out here, for a run takes minutes")
        return False
    return not missing


def interleaved(engines: list[str], part: str, rounds: int) -> dict[str, float]:
    """Return the median seconds of engines whose runs take turns."""
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
    """Say whether a module is installed."""
    return importlib.util.find_spec(module) is not None


def print_table(part: str, seconds: dict[str, float]) -> None:
    """Print one part's table: seconds, and how many times as long as each of ours a peer takes."""
    ours = [engine for engine in seconds if engine.startswith(OURS)]
    print(f"**{part}** ({NOTES[PARTS[part].network]})\n")
    print(f"| engine | seconds | {' | '.join(f'of {engine}' for engine in ours)} |\n|---{'|---' * (len(ours) + 1)}|")
    for engine, median in sorted(seconds.items(), key=lambda item: item[1]):
        ratios = " | ".join(f"{median / seconds[mine]:.2f}" for mine in ours)
        print(f"| {engine} | {median:.2f} | {ratios} |")
    print(flush=True)


def draw(found: dict[str, dict[str, float]], path: Path) -> None:
    """Draw a bar of seconds for each engine, a panel of its own scale for each part."""
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
