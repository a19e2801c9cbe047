"""Compare a benchmark of this checkout with that of another: interleaved pairs of runs, medians and ratios.

    git worktree add ../before <commit>
    python bench/versus.py ../before service.py --pairs 5 -- --runs 3 --requests 50

Each run is a process of its own that imports the package of its checkout. Every number in a table that the benchmark
prints is a figure; row, column and position in the cell match the figures of the two checkouts. Prints a table in
Markdown.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent.parent
#: Row, column, and position among the numbers of the cell.
Position = tuple[int, int, int]
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout, with its kernels built")
    parser.add_argument("script", help="a benchmark in bench/ of both checkouts")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each checkout")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:end])
    found: dict[Position, tuple[list[float], list[float]]] = {}
    names: dict[Position, str] = {}
    for pair in range(options.pairs):
        # The order alternates, so that a drift of the machine's speed favours neither checkout.
        for side in ((0, 1), (1, 0))[pair % 2]:
            checkout = (options.before.resolve(), HERE)[side]
            for position, (name, value) in figures(run(checkout, options.script, words[end + 1 :])).items():
                found.setdefault(position, ([], []))[side].append(value)
                names[position] = name
        print(f"pair {pair + 1} of {options.pairs} is done", file=sys.stderr)
    print("| figure | before | after | after / before |\n|---|---|---|---|")
    for position, sides in found.items():
        if all(sides):
            before, after = (statistics.median(side) for side in sides)
            print(
                f"| {names[position]} | {before:.3f} | {after:.3f} | {after / before if before else float('nan'):.3f} |"
            )


def run(checkout: Path, script: str, options: list[str]) -> str:
    """Run a benchmark of a checkout; return its output."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (checkout / "src", checkout)))}
    command = [sys.executable, str(checkout / "bench" / script), *options]
    return subprocess.run(command, env=environment, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True).stdout


def figures(printed: str) -> dict[Position, tuple[str, float]]:
    """Return the numbers of all tables with their names."""
    found: dict[Position, tuple[str, float]] = {}
    header: list[str] = []
    row = 0
    lines = printed.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith("|") or line.startswith("|---"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if following.startswith("|---"):
            header = cells
            continue
        row += 1
        for column, cell in enumerate(cells[1:], 1):
            for part, number in enumerate(_NUMBER.findall(cell)):
                found[row, column, part] = f"{cells[0]}: {header[column]}", float(number)
    return found


if __name__ == "__main__":
    main()
