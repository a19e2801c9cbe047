"""Measures the autoencoder's tiled decode: its difference from an untiled decode at 1024x768, and its peak memory.

The networks have FLUX.1's sizes and random weights. The tiled decode is compared with the same decode in one tile, and
with torch's own layers. Memory is the peak resident memory of a fresh process, torch included. Takes some minutes.
"""

import argparse
import datetime as dt
import os
import subprocess
import sys
import time

import torch

from allaprima.flux import SCHNELL, Autoencoder, never_cancelled, tiled_decode
from service import cpu_name, peak_mib


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory-of", help="decode one image of this size, and print the peak memory in GB")
    size = parser.parse_args().memory_of
    if size:
        decode_largest(*map(int, size.split("x")))
        return
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    print("\nDifferences in levels of 255, the largest (and the root mean square).\n\n| decode | figure |\n|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        compare(dtype)
    for largest in ("512x512", "1024x768", "1536x1536"):
        measured = subprocess.run((sys.executable, __file__, "--memory-of", largest), capture_output=True, check=True)
        print(f"| {largest}, bfloat16, {measured.stdout.decode().strip()} |", flush=True)


@torch.inference_mode()
def compare(dtype: torch.dtype) -> None:
    """Print by how many of 255 levels the tiled decode differs from an untiled one, at 1024x768."""
    torch.manual_seed(1)
    config = SCHNELL.autoencoder
    autoencoder = Autoencoder(config).to(dtype)
    z = torch.randn(1, 16, 96, 128).to(dtype)
    tiled = autoencoder.decode(z).float()
    plain = autoencoder.decoder(z / config.scale_factor + config.shift_factor, never_cancelled).float()
    limit, tiled_decode.MAX_TILE_VALUES = tiled_decode.MAX_TILE_VALUES, 2**62
    one_tile = autoencoder.decode(z).float()
    tiled_decode.MAX_TILE_VALUES = limit
    name = str(dtype).removeprefix("torch.")
    for what, other in (("one tile", one_tile), ("torch's layers", plain)):
        print(f"| 1024x768, {name}, tiles against {what} | {off(tiled, other)} |", flush=True)
    if dtype == torch.bfloat16:
        exact = autoencoder.float().decoder(z.float() / config.scale_factor + config.shift_factor, never_cancelled)
        for what, found in (("tiles", tiled), ("torch's layers", plain)):
            print(f"| 1024x768, {name} {what} against float32 | {off(found, exact)} |", flush=True)


def off(found: torch.Tensor, wanted: torch.Tensor) -> str:
    """Return the maximum and root mean square difference of two images in [-1, 1], in levels of 255."""
    difference = (found - wanted) * 127.5
    return f"{float(difference.abs().max()):.4f} ({float(difference.square().mean().sqrt()):.4f})"


@torch.inference_mode()
def decode_largest(width: int, height: int) -> None:
    """Decode one image and print the seconds and the peak memory."""
    autoencoder = Autoencoder(SCHNELL.autoencoder).bfloat16()
    started = time.perf_counter()
    autoencoder.decode(torch.randn(1, 16, height // 8, width // 8).bfloat16())
    seconds = time.perf_counter() - started
    print(f"peak memory, GB, and seconds | {peak_mib(os.getpid()) * 2**20 / 1e9:.2f} and {seconds:.1f}")


if __name__ == "__main__":
    main()
