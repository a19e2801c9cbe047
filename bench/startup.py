"""How long commands take to start: a cold `allaprima generate` against `import torch`, and commands without torch.

Each round runs every command once, in a process of its own, in turn. Prints medians in Markdown with machine and date.
"""

import argparse
import datetime as dt
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from service import ALLAPRIMA, cpu_name

TORCH = (sys.executable, "-c", "import torch")
#: With compiled bytecode, as an installed program has it.
ENVIRONMENT = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
GENERATE = (*ALLAPRIMA, "generate", "a red apple", "--size", "512x512", "--no-show")


@dataclass
class Command:
    """A command, and its figures in seconds: one of each a round."""

    arguments: tuple[str, ...]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    first_line: list[float] = field(default_factory=list)

    def run(self, folder: Path) -> None:
        """Run the command once in a folder."""
        cpu, began = _cpu_of_children(), time.perf_counter()
        with subprocess.Popen(
            self.arguments, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            if process.stdout.readline():
                self.first_line.append(time.perf_counter() - began)
            process.stdout.read()
        if process.returncode:
            raise SystemExit(f"{' '.join(self.arguments)} failed with {process.returncode}")
        self.wall.append(time.perf_counter() - began)
        self.cpu.append(_cpu_of_children() - cpu)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    commands = {
        "import torch": Command(TORCH),
        "generate, 512x512": Command(GENERATE),
        "keys list": Command((*ALLAPRIMA, "keys", "list")),
        "models": Command((*ALLAPRIMA, "models")),
    }
    with tempfile.TemporaryDirectory() as folder:
        # Creates the data folder, and fills the caches of the operating system.
        subprocess.run((*ALLAPRIMA, "keys", "create"), cwd=folder, check=True, capture_output=True)
        for command in commands.values():
            Command(command.arguments).run(Path(folder))
        for _ in range(rounds):
            for command in commands.values():
                command.run(Path(folder))
    print(f"{cpu_name()}, {os.cpu_count()} cores, {dt.datetime.now(dt.UTC):%Y-%m-%d}, medians of {rounds}\n")
    print("| command | seconds | CPU seconds | seconds to the first line | over import torch |\n|---|---|---|---|---|")
    base = statistics.median(commands["import torch"].wall)
    for name, command in commands.items():
        wall, cpu = statistics.median(command.wall), statistics.median(command.cpu)
        first = f"{statistics.median(command.first_line):.2f}" if command.first_line else ""
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {first} | {wall / base:.2f} |")


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
