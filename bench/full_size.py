"""A full-size FLUX.1 [schnell] on this machine: seconds and peak memory of loading it and of generating four images.

The script writes a checkpoint of random numbers in the published sizes, in the layout of `--layout`: its speed and
memory are those of the real one, its images are noise. Then `allaprima serve --model` loads it in a new process, in
int8, and generates images of four new prompts through the API; a second server starts from the weights that the first
one packed. Prints a table in Markdown with machine and date. Takes about a quarter of an hour; a message states the
disk space that is missing.
"""

import argparse
import datetime as dt
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import httpx2
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from allaprima.domain.models import Precision
from allaprima.flux import SCHNELL
from allaprima.weights.quantize import build_networks, footprint
from service import cpu_name, peak_mib, server

PROMPTS = ("a t-rex on a beach", "a red boat at dawn", "an owl that reads", "a pizza on the moon")
STEPS = 4
PHASES = {
    "text": "text",
    "first": "first step, modulations included",
    "step": "further step",
    "decode": "decode",
    "whole": "whole image",
}
GIB = 2**30
Shape = tuple[int, ...]
#: The normal distribution's values at the middles of 256 equally likely intervals: a random byte is an index.
NORMAL = torch.erfinv((2 * torch.arange(256) + 1) / 256 - 1) * 2**0.5
RNG = np.random.Generator(np.random.SFC64(0))


def main() -> None:
    """Write the checkpoint, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layout", choices=sorted(LAYOUTS), required=True)
    parser.add_argument("--folder", type=Path, default=Path("build/full-size"), help="where to write it")
    parser.add_argument("--size", action="append", help="size of the images; 512x512 and 256x256 by default")
    parser.add_argument(
        "--images", type=int, choices=range(1, 5), default=4, help="images of each size, of new prompts"
    )
    parser.add_argument("--precision", choices=["int8", "int8wo", "int4wo"], default="int8")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoint and its packed weights")
    options = parser.parse_args()
    folder: Path = options.folder / options.layout
    write, nbytes = LAYOUTS[options.layout]
    precision = Precision(options.precision)
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        check_disk(folder, nbytes + footprint(SCHNELL, precision).whole)
        with timed(f"writing {nbytes / GIB:.1f} GiB of {options.layout}"):
            write(folder)
            write_tokenizers(folder)
        (folder / "done").touch()
    print(f"{cpu_name()}, {os.cpu_count()} cores, torch {torch.__version__}, {dt.datetime.now(dt.UTC):%Y-%m-%d}")
    print(f"\n{options.layout} read as {precision}, {STEPS} steps\n\n| figure | value |\n|---|---|")
    measure(folder, precision, options.size or ["512x512", "256x256"], PROMPTS[: options.images])
    if not options.keep:
        shutil.rmtree(folder)


def check_disk(folder: Path, needed: int) -> None:
    """Exit with a message if less than `needed` bytes are free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"{folder} has {free / GIB:.1f} GiB free; checkpoint and packed weights take {needed / GIB:.1f}"
        )


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the seconds of the block."""
    started = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - started:.0f} s\n")


# Measuring ------------------------------------------------------------------------------------------------------------


def measure(folder: Path, precision: Precision, sizes: list[str], words: Sequence[str]) -> None:
    """Start the server twice; print seconds and memory."""
    for name in ("data", "again", "weights"):
        shutil.rmtree(folder / name, ignore_errors=True)
    os.environ |= {"ALLAPRIMA_SERVER__WAIT_S": "3600", "ALLAPRIMA_ENGINE__WEIGHTS_DIR": str(folder / "weights")}
    options = ("--model", str(folder), "--precision", precision)
    started = time.perf_counter()
    with server(folder / "data", *options) as (address, key, process):
        print(f"| first start: read, check and pack, s | {time.perf_counter() - started:.0f} |")
        print(f"| peak memory so far, GB | {peak_gb(process.pid):.1f} |", flush=True)
        client = httpx2.Client(base_url=address, headers={"authorization": f"Bearer {key}"}, timeout=3600)
        for i, size in enumerate(sizes):
            # Prompts of each size are new to the server, which caches the embeddings of encoded ones.
            prompts = [f"{prompt} {'again ' * i}".strip() for prompt in words]
            answers = [generate(client, prompt, size, seed) for seed, prompt in enumerate(prompts)]
            for name in ("text", "first", "step", "decode", "whole"):
                seconds = statistics.median(answer[name] for answer in answers)
                print(
                    f"| {size}, {PHASES[name]}, s, median of {len(prompts)} new prompts | {seconds:.1f} |", flush=True
                )
            known = generate(client, prompts[0], size, 77)
            print(f"| {size}, whole image of a prompt that was encoded before, s | {known['whole']:.1f} |", flush=True)
        print(f"| peak memory from load to the last image, GB | {peak_gb(process.pid):.1f} |", flush=True)
    started = time.perf_counter()
    with server(folder / "again", *options):
        print(f"| second start, s | {time.perf_counter() - started:.1f} |", flush=True)


def generate(client: httpx2.Client, prompt: str, size: str, seed: int) -> dict[str, float]:
    """Generate one image; return the seconds of its phases."""
    width, height = map(int, size.split("x"))
    body = {"prompt": prompt, "model": "flux/schnell", "image_size": {"width": width, "height": height}, "seed": seed}
    started = time.perf_counter()
    response = client.post("/v1/images/generations", json=body | {"num_inference_steps": STEPS})
    whole = time.perf_counter() - started
    answer: dict[str, Any] = response.raise_for_status().json()
    if answer["meta"]["model"] != "flux/schnell":
        raise SystemExit(f"generated by {answer['meta']['model']}, not by the checkpoint")
    timings = answer["timings"]
    first, *steps = timings["steps"]
    return {"whole": whole, "first": first, "step": statistics.median(steps)} | {
        name: timings[name] for name in ("text", "decode")
    }


def peak_gb(pid: int) -> float:
    """Return the largest resident memory of a process so far, mapped files included, in GB (10^9 bytes)."""
    return peak_mib(pid) * 2**20 / 1e9


# Writing the checkpoint -----------------------------------------------------------------------------------------------


def shapes_of(part: str) -> dict[str, Shape]:
    """Return the shapes of one network's tensors, by our names."""
    network = build_networks(SCHNELL, Precision.BF16).get_submodule(part)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def spread(name: str, shape: Shape) -> tuple[float, float]:
    """Return mean and standard deviation that keep activations finite through all blocks."""
    if len(shape) > 1:
        return 0.0, (shape[0] if "relative_attention_bias" in name else np.prod(shape[1:])) ** -0.5
    return (1.0 if "norm" in name and not name.endswith("bias") else 0.0), 0.01


def random(name: str, shape: Shape, dtype: torch.dtype) -> NDArray[Any]:
    """Return random numbers of a dtype, viewed as integers of its size."""
    mean, deviation = spread(name, shape)
    table = (NORMAL * deviation + mean).to(dtype)
    raw = table.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[dtype.itemsize]).numpy()
    count = int(np.prod(shape))
    return raw.take(np.frombuffer(RNG.bytes(count), np.uint8))


def write_safetensors(path: Path, tensors: dict[str, Shape], dtype_of: Callable[[str], torch.dtype]) -> None:
    """Write random tensors one after another: the library's own writer needs all of them in memory.

    dtype_of: the dtype in which a tensor is stored, by its name.
    """
    names = {torch.float8_e4m3fn: "F8_E4M3", torch.bfloat16: "BF16", torch.float32: "F32", torch.float16: "F16"}
    header, end = {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + int(np.prod(shape)) * dtype_of(name).itemsize
        header[name] = {"dtype": names[dtype_of(name)], "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in tensors.items():
            file.write(random(name, shape, dtype_of(name)).data)


def write_bf16(folder: Path) -> None:
    """Write the transformer and the autoencoder as Black Forest Labs publish them, and the text encoders."""
    write_safetensors(folder / "flux1-schnell.safetensors", shapes_of("transformer"), lambda _: torch.bfloat16)
    write_safetensors(folder / "t5xxl_bf16.safetensors", shapes_of("t5"), lambda _: torch.bfloat16)
    write_small(folder)


def write_small(folder: Path) -> None:
    """Write CLIP and the autoencoder."""
    write_safetensors(folder / "clip_l.safetensors", shapes_of("clip"), lambda _: torch.float16)
    write_safetensors(folder / "ae.safetensors", shapes_of("autoencoder"), lambda _: torch.float32)


def write_fp8(folder: Path) -> None:
    """Write everything into one file in ComfyUI's layout: the transformer and T5 in float8 without scales."""
    prefixes = {
        "transformer": "model.diffusion_model.",
        "t5": "text_encoders.t5xxl.transformer.",
        "clip": "text_encoders.clip_l.transformer.",
        "autoencoder": "vae.",
    }
    tensors = {prefix + name: shape for part, prefix in prefixes.items() for name, shape in shapes_of(part).items()}

    def dtype_of(name: str) -> torch.dtype:
        if name.startswith((prefixes["transformer"], prefixes["t5"])):
            return torch.float8_e4m3fn
        return torch.float16 if name.startswith(prefixes["clip"]) else torch.float32

    write_safetensors(folder / "flux1-schnell-fp8.safetensors", tensors, dtype_of)


def write_gguf(folder: Path) -> None:
    """Write the transformer as Q8_0, except the layers that city96's converter keeps in float32; T5 in bfloat16."""
    kept = ("txt_in.", "img_in.", "time_in.", "vector_in.", "final_layer.")
    shapes = shapes_of("transformer")
    writer = gguf.GGUFWriter(folder / "flux1-schnell-Q8_0.gguf", "flux")
    for name, shape in shapes.items():
        packs = len(shape) == 2 and not name.startswith(kept)
        kind = gguf.GGMLQuantizationType.Q8_0 if packs else gguf.GGMLQuantizationType.F32
        stored = (shape[0], shape[1] // 32 * 34) if packs else shape
        nbytes = int(np.prod(stored)) * (1 if packs else 4)
        writer.add_tensor_info(name, stored, np.dtype(np.uint8 if packs else np.float32), nbytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape in shapes.items():
        packs = len(shape) == 2 and not name.startswith(kept)
        writer.write_tensor_data(q8_0(name, shape) if packs else random(name, shape, torch.float32))
    writer.close()
    write_safetensors(folder / "t5xxl_bf16.safetensors", shapes_of("t5"), lambda _: torch.bfloat16)
    write_small(folder)


def q8_0(name: str, shape: Shape) -> NDArray[np.uint8]:
    """Return random blocks of 32 numbers, each a float16 scale and 32 int8."""
    _, deviation = spread(name, shape)
    count = int(np.prod(shape))
    blocks = np.frombuffer(bytearray(RNG.bytes(count // 32 * 34)), np.uint8).reshape(-1, 34)
    # A random int8 has a standard deviation of 74.
    blocks[:, :2] = np.array([deviation / 74], np.float16).view(np.uint8)
    return blocks


def write_tokenizers(folder: Path) -> None:
    """Write tokenizers of a few words into the folders of the published ones."""
    special = {"tokenizer_2": ["<pad>", "</s>", "<unk>"], "tokenizer": ["<unk>", "<|startoftext|>", "<|endoftext|>"]}
    words = sorted({word for prompt in PROMPTS for word in prompt.split()})
    for name, tokens in special.items():
        # CLIP pools at the position of the largest id, which must be the end of the text.
        texts = [*words, *tokens] if name == "tokenizer" else [*tokens, *words]
        model = models.WordLevel({text: i for i, text in enumerate(texts)}, unk_token="<unk>")  # noqa: S106
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        (folder / name).mkdir()
        tokenizer.save(str(folder / name / "tokenizer.json"))


#: For each layout the function that writes it, and its size in bytes.
LAYOUTS: dict[str, tuple[Callable[[Path], None], int]] = {
    "bf16": (write_bf16, 33_890_000_000),
    "fp8": (write_fp8, 17_240_000_000),
    "gguf-q8": (write_gguf, 22_790_000_000),
}

if __name__ == "__main__":
    main()
