"""How long a T5 GGUF takes to open and its tokenizer to build, against the reader of the `gguf` library.

The file has the header that llama.cpp's converter writes, with the vocabulary of 32,128 entries, and one small tensor.
Prints medians in Markdown with machine and date.
"""

import argparse
import datetime as dt
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gguf

from allaprima.weights.formats.container import open_container
from allaprima.weights.formats.gguf import GGUFContainer
from allaprima.weights.tokenizers.gguf import read_gguf_tokenizer
from allaprima.weights.tokenizers.packaged import packaged_clip, packaged_t5
from service import cpu_name

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.weights.tokenizers.t5_gguf import t5_fields, write_t5_gguf


def seconds(action: Callable[[], object], rounds: int) -> float:
    """Return the median time of an action."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t5.gguf"
        write_t5_gguf(path, t5_fields())
        container = open_container(path)
        assert isinstance(container, GGUFContainer)
        rows = {
            "open a T5 GGUF": seconds(lambda: open_container(path), rounds),
            "the same with the reader of the `gguf` library": seconds(lambda: gguf.GGUFReader(path), 3),
            "build the tokenizer from its header": seconds(lambda: read_gguf_tokenizer(container), rounds),
            "read the package's T5 tokenizer": seconds(packaged_t5, rounds),
            "read the package's CLIP tokenizer": seconds(packaged_clip, rounds),
        }
    print(f"{cpu_name()}, {os.cpu_count()} cores, {dt.datetime.now(dt.UTC):%Y-%m-%d}, medians of {rounds}\n")
    print("| | ms |\n|---|---|")
    for name, taken in rows.items():
        print(f"| {name} | {taken * 1000:.1f} |")


if __name__ == "__main__":
    main()
