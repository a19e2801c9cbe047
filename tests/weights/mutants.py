"""Open 300 mutated files of weights, in a separate process, and print the outcome of each as JSON.

`python -m tests.weights.mutants FOLDER TOKENIZERS`: FOLDER holds a valid transformer in each of `KINDS` as
`valid.KIND`, the other components in `rest`, and a folder of the built-in format in `builtin`.
"""

import json
import random
import re
import resource
import sys
import traceback
from pathlib import Path

from allaprima.domain.models import Precision
from allaprima.errors import WeightsError
from allaprima.weights.builtin_header import WEIGHTS_FILE
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.open import open_model
from allaprima.weights.packed_cache import PackedWeightCache

COUNT = 300
#: The last is the built-in format.
KINDS = ("safetensors", "gguf", "nf4", "u8", "i8", "builtin")
WRONG_SIZES = (0, 1, 10**6, 10**8, 2**31, 2**60, 2**63, 2**64 - 1)
#: Number formats of one size, whose names have one length.
CONTAINERS = ((b'"U8"', b'"I8"'), (b'"F32"', b'"I32"', b'"U32"'), (b'"F16"', b'"I16"', b'"U16"'), (b'"F64"', b'"I64"'))
#: What a broken download, a gated page or an archiver leaves under a file's name.
STARTS = (
    b"version https://git-lfs.github.com/spec/v1\n",
    b"<html>",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\x80\x04\x95",
    bytes(9),
)


def mutate(data: bytearray, number: int, rng: random.Random) -> None:
    """Truncate a file, overwrite a 64-bit number at its start, its start or its end, or change bytes of its header.

    A file with a header of JSON can also get another number format for one of its tensors.
    """
    # Sizes, shapes, offsets, and the descriptions of layers in 4 bits and in containers are digits of JSON.
    header = 0 if data.startswith(b"GGUF") else 8 + int.from_bytes(data[:8], "little")
    digits = [found.start() for found in re.finditer(rb"(?<=[\[,:\-])[1-9]", data[:header])]
    containers = list(re.finditer(rb'"[FIU](8|16|32|64)"', data[:header]))
    match number % (9 + bool(containers) if digits else 7):
        case 0:
            del data[rng.randrange(4, len(data)) :]
        case 1 | 2 | 3 as field:
            data[8 * (field - 1) : 8 * field] = rng.choice(WRONG_SIZES).to_bytes(8, "little")
        case 4:
            for _ in range(60):
                data[rng.randrange(8, 3000)] = rng.randrange(256)
        case 5:
            start = rng.choice(STARTS)
            data[: len(start)] = start
        case 6:
            kept = rng.randrange(len(data) // 2)
            data[kept:] = bytes(len(data) - kept)
        case 7:
            data[rng.choice(digits)] = rng.choice(b"0123456789-")
        case 9:
            found = rng.choice(containers)
            others = [name for names in CONTAINERS if found[0] in names for name in names if name != found[0]]
            data[slice(*found.span())] = rng.choice(others)
        case _:
            described = [found.start() for found in re.finditer(rb"quant_type|float8_e4m3fn|shape", data)]
            data[rng.choice(described or [9]) + rng.randrange(-1, 14)] = rng.randrange(32, 127)


def load(kind: str, folder: Path, tokenizers: Path) -> str:
    """Return the revision of the model whose file was replaced."""
    if kind == "builtin":
        return open_model(folder / "builtin").load(precision=Precision.BF16).revision
    cache = PackedWeightCache(folder / "cache")
    return open_checkpoint(folder / "rest", cache, tokenizers).load(precision=Precision.BF16).revision


def outcome(kind: str, folder: Path, tokenizers: Path) -> str:
    try:
        return f"revision {load(kind, folder, tokenizers)}"
    except WeightsError as exc:
        return exc.message
    except BaseException:  # noqa: BLE001 - the test reports every error
        return traceback.format_exc()


def main(folder: Path, tokenizers: Path) -> None:
    rng = random.Random(5)
    outcomes = []
    files = dict.fromkeys(KINDS, folder / "rest" / "mutant.safetensors")
    files["builtin"] = folder / "builtin" / WEIGHTS_FILE
    sound = {kind: (folder / f"valid.{kind}").read_bytes() for kind in KINDS}
    for number in range(-len(KINDS), COUNT):
        kind = KINDS[number % len(KINDS)]
        data = bytearray(sound[kind])
        if number >= 0:
            mutate(data, number // len(KINDS), rng)
        files[kind].write_bytes(data)
        outcomes.append((kind, outcome(kind, folder, tokenizers)))
        if number < 0:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"outcomes": outcomes, "grown_kib": grown}))  # noqa: T201 - the result


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
