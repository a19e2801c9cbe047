"""Measures the kernels against bare matrix products: linears against torch's int8 product, attention against bfloat16.

A linear is timed with everything it does: quantizing the activations, product, scales, bias, GELU, gate and residual.
The bare products are oneDNN's, called by torch, of the same shapes (for attention: 2048 x 2048 x 2048); the two are
measured alternately. Prints a table in Markdown, and the peak rate of the CPU's registers (needs a C++ compiler).
"""

import datetime as dt
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from allaprima.kernels import Epilogue, Int8Linear, Linear, attention
from service import cpu_name

THREADS = 2
ROUNDS = 15
#: FLUX.1 at 512x512, 1024 image tokens and 256 text tokens: tokens, columns in, rows out, epilogue.
LINEARS = {
    "single block, q, k and v": (1280, 3072, 9216, "bias"),
    "single block, MLP": (1280, 3072, 12288, "gelu"),
    "single block, linear2": (1280, 15360, 3072, "residual"),
    "double block, image, attention's proj": (1024, 3072, 3072, "residual"),
    "double block, image, MLP's second": (1024, 12288, 3072, "residual"),
    "T5, wi": (256, 4096, 10240, "gelu"),
    "T5, wo": (256, 10240, 4096, "residual"),
}
#: Heads, tokens, head width.
ATTENTIONS = {"512x512": (24, 1280, 128), "1024x768": (24, 3328, 128), "autoencoder, 512x512": (1, 4096, 512)}


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    print(f"{cpu_name()}, {THREADS} threads, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}\n")
    for unit, (int8, bf16) in zip(("AVX-512", "AMX"), peak(), strict=False):
        print(f"Registers alone reach {int8} GOP/s in int8 and {bf16} GFLOP/s in bfloat16, by {unit}.\n")
    print("| int8 linear | shape | GOP/s | bare product, GOP/s | share |\n|---|---|---|---|---|")
    for name, (tokens, columns, rows, follows) in LINEARS.items():
        linear, bare = linear_and_bare(tokens, columns, rows, follows)
        report(name, f"{tokens}x{columns}x{rows}", 2e-9 * tokens * columns * rows, linear, bare)
    print("\n| bfloat16 attention | shape | GFLOP/s | bare product, GFLOP/s | share |\n|---|---|---|---|---|")
    a, b = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    for name, (heads, tokens, width) in ATTENTIONS.items():
        q, k, v = torch.randn(1, tokens, 3, heads, width).bfloat16().permute(2, 0, 3, 1, 4)
        flops = 4e-9 * heads * tokens**2 * width
        scale = flops / (2e-9 * 2048**3)
        report(
            name, f"{heads}x{tokens}x{width}", flops, partial(attention, q, k, v), partial(torch.matmul, a, b), scale
        )


def peak() -> list[list[str]]:
    """Return the results of `peak.cpp`: int8 and bfloat16 rates of AVX-512 and, where available, of AMX."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        source = Path(__file__).with_name("peak.cpp")
        subprocess.run(("g++", "-O3", "-std=c++17", "-pthread", "-Wno-psabi", source, "-o", program), check=True)
        lines = subprocess.run((program,), capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split() for line in lines]


def linear_and_bare(
    tokens: int, columns: int, rows: int, follows: str
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Return a call of a linear with its epilogue, and a call of the bare product of the same shape."""
    plain = Linear(columns, rows).bfloat16()
    packed = Int8Linear.like(plain, torch.bfloat16)
    packed.load_state_dict(packed.pack(plain.weight) | {"bias": plain.bias}, assign=True)
    x, gate, residual = (
        torch.randn(1, count, size).bfloat16() for count, size in ((tokens, columns), (1, rows), (tokens, rows))
    )
    epilogue = {"bias": Epilogue(), "gelu": Epilogue(gelu=True), "residual": Epilogue(gate=gate, residual=residual)}[
        follows
    ]
    numbers = torch.randint(-127, 128, (tokens, columns), dtype=torch.int8)
    transposed = packed.weight.t()
    return lambda: packed(x, epilogue), lambda: torch._int_mm(numbers, transposed)  # noqa: SLF001


def report(
    name: str, shape: str, work: float, ours: Callable[[], Tensor], bare: Callable[[], Tensor], scale: float = 1
) -> None:
    """Print one row. work: in 10^9 operations; scale: `work` divided by that of the bare product."""
    ours(), bare()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for runs, call in zip(seconds, (ours, bare), strict=True):
            started = time.perf_counter()
            call()
            runs.append(time.perf_counter() - started)
    mine, theirs = (statistics.median(runs) for runs in seconds)
    rate, bare_rate = work / mine, work / (theirs * scale)
    print(f"| {name} | {shape} | {rate:.0f} | {bare_rate:.0f} | {rate / bare_rate:.0%} |", flush=True)


if __name__ == "__main__":
    main()
