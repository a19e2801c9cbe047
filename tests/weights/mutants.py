"""Open 200 mutated checkpoints, in a process of its own, and print what came of each as JSON.

`python -m weights.mutants FOLDER TOKENIZERS`: the folder holds a sound transformer as `sound.safetensors` and as
`sound.gguf`, and in `rest` the other parts.
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
from allaprima.weights.packed_cache import Shelf

COUNT = 200
LIES = (0, 1, 10**6, 10**8, 2**31, 2**60, 2**63, 2**64 - 1)


def mutate(data: bytearray, number: int, rng: random.Random) -> None:
    """Cut a file short, let its first numbers lie, or turn bytes of its header."""
    match number // 2 % 5:
        case 0:
            del data[rng.randrange(4, len(data)) :]
        case 1 | 2 | 3 as field:
            data[8 * (field - 1) : 8 * field] = rng.choice(LIES).to_bytes(8, "little")
        case 4:
            for _ in range(60):
                data[rng.randrange(8, 3000)] = rng.randrange(256)


def main(folder: Path, tokenizers: Path) -> None:
    rng = random.Random(5)
    place = folder / "rest" / "mutant.safetensors"
    ends = []
    for number in range(-2, COUNT):
        sound = folder / ("sound.gguf" if number % 2 else "sound.safetensors")
        data = bytearray(sound.read_bytes())
        if number >= 0:
            mutate(data, number, rng)
        place.write_bytes(data)
        try:
            open_checkpoint(place.parent, Shelf(place.parent.with_name("shelf")), tokenizers).load(
                precision=Precision.BF16
            )
            ends.append("loaded")
        except WeightsError as exc:
            ends.append(exc.message)
        except BaseException:  # noqa: BLE001 - whatever it is, it is told
            ends.append(traceback.format_exc())
        if number < 0:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shutil.rmtree(place.parent)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"ends": ends, "grown_kib": grown, "place": str(place)}))  # noqa: T201 - the answer


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
