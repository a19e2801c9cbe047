"""Open 200 mutated checkpoints, in a separate process, and print the outcome of each as JSON.

`python -m tests.weights.mutants FOLDER TOKENIZERS`: FOLDER holds a valid transformer as `valid.safetensors` and
`valid.gguf`, and the other components in `rest`.
"""

import json
import random
import resource
import shutil
import sys
import traceback
from pathlib import Path

from allaprima.domain.models import Precision
from allaprima.errors import WeightsError
from allaprima.weights.checkpoint.loader import open_checkpoint
from allaprima.weights.packed_cache import PackedWeightCache

COUNT = 200
WRONG_SIZES = (0, 1, 10**6, 10**8, 2**31, 2**60, 2**63, 2**64 - 1)


def mutate(data: bytearray, number: int, rng: random.Random) -> None:
    """Truncate a file, overwrite one of its first three 64-bit numbers, or change bytes of its header."""
    match number // 2 % 5:
        case 0:
            del data[rng.randrange(4, len(data)) :]
        case 1 | 2 | 3 as field:
            data[8 * (field - 1) : 8 * field] = rng.choice(WRONG_SIZES).to_bytes(8, "little")
        case 4:
            for _ in range(60):
                data[rng.randrange(8, 3000)] = rng.randrange(256)


def main(folder: Path, tokenizers: Path) -> None:
    rng = random.Random(5)
    mutant = folder / "rest" / "mutant.safetensors"
    outcomes = []
    for number in range(-2, COUNT):
        valid = folder / ("valid.gguf" if number % 2 else "valid.safetensors")
        data = bytearray(valid.read_bytes())
        if number >= 0:
            mutate(data, number, rng)
        mutant.write_bytes(data)
        try:
            cache = PackedWeightCache(mutant.parent.with_name("cache"))
            open_checkpoint(mutant.parent, cache, tokenizers).load(precision=Precision.BF16)
            outcomes.append("loaded")
        except WeightsError as exc:
            outcomes.append(exc.message)
        except BaseException:  # noqa: BLE001 - the test reports every error
            outcomes.append(traceback.format_exc())
        if number < 0:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shutil.rmtree(mutant.parent)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"outcomes": outcomes, "grown_kib": grown, "mutant": str(mutant)}))  # noqa: T201 - the result


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
