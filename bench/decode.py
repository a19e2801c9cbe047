"""The autoencoder's decode in bands: how near it is to the whole decode at 1024x768, and its memory at 1536x1536.

The networks have FLUX.1's sizes and random numbers. "Whole" is the same decoder with one band, and torch's own layers
one after another. Memory is the largest resident memory of a fresh process, torch included. Takes some minutes.
"""

import argparse
import datetime as dt
import os
import subprocess
import sys
import time

import torch

from allaprima.flux import SCHNELL, Autoencoder, bands, no_check
from service import cpu_name, peak_mib


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory-of", help="decode one picture of this size, and print the peak memory in GB")
    size = parser.parse_args().memory_of
    if size:
        decode_largest(*map(int, size.split("x")))
        return
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    print("\nDifferences in levels of 255, the largest (and the root mean square).\n\n| decode | figure |\n|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        compare(dtype)
    for largest in ("512x512", "1024x768", "1536x1536"):
        told = subprocess.run((sys.executable, __file__, "--memory-of", largest), capture_output=True, check=True)
        print(f"| {largest}, bfloat16, {told.stdout.decode().strip()} |", flush=True)


@torch.inference_mode()
def compare(dtype: torch.dtype) -> None:
    """Print by how many of 255 levels the bands differ from the whole, at 1024x768."""
    torch.manual_seed(1)
    config = SCHNELL.autoencoder
    made = Autoencoder(config).to(dtype)
    z = torch.randn(1, 16, 96, 128).to(dtype)
    in_bands = made.decode(z).float()
    plain = made.decoder(z / config.scale_factor + config.shift_factor, no_check).float()
    height, bands.BAND = bands.BAND, 2**62
    in_one = made.decode(z).float()
    bands.BAND = height
    name = str(dtype).removeprefix("torch.")
    for what, other in (("one band", in_one), ("torch's layers", plain)):
        print(f"| 1024x768, {name}, bands against {what} | {off(in_bands, other)} |", flush=True)
    if dtype == torch.bfloat16:
        exact = made.float().decoder(z.float() / config.scale_factor + config.shift_factor, no_check)
        for what, found in (("bands", in_bands), ("torch's layers", plain)):
            print(f"| 1024x768, {name} {what} against float32 | {off(found, exact)} |", flush=True)


def off(found: torch.Tensor, wanted: torch.Tensor) -> str:
    """Say by how much two pictures from -1 to 1 differ, in levels of 255."""
    difference = (found - wanted) * 127.5
    return f"{float(difference.abs().max()):.4f} ({float(difference.square().mean().sqrt()):.4f})"


@torch.inference_mode()
def decode_largest(width: int, height: int) -> None:
    """Decode one picture and print the seconds and the peak memory."""
    made = Autoencoder(SCHNELL.autoencoder).bfloat16()
    started = time.perf_counter()
    made.decode(torch.randn(1, 16, height // 8, width // 8).bfloat16())
    seconds = time.perf_counter() - started
    print(f"peak memory, GB, and seconds | {peak_mib(os.getpid()) * 2**20 / 1e9:.2f} and {seconds:.1f}")


if __name__ == "__main__":
    main()
