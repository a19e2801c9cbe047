"""The vocabularies of FLUX's tokenizers that the package contains, written by `tools/vocabularies.py`.

T5's is a file of the `tokenizers` library. CLIP's consists of the merges: its vocabulary is 256 bytes, the same at the
end of a word, the merged pieces, and the two special tokens (openai/CLIP `clip/simple_tokenizer.py`).
"""

import gzip
from importlib.resources import files
from pathlib import Path

from tokenizers import Tokenizer, models

from allaprima.weights.tokenizers.clip import BEGIN, END, END_OF_WORD, clip_tokenizer

FOLDER = Path(str(files("allaprima.weights") / "vocabularies"))
T5_FILE, CLIP_FILE = "t5.json.gz", "clip-merges.txt.gz"
Merges = list[tuple[str, str]]


def packaged_t5() -> Tokenizer:
    """Return the tokenizer of T5 v1.1: 32,000 pieces and 100 sentinels. Raises any error of a damaged file."""
    return Tokenizer.from_buffer(_read(T5_FILE))


def packaged_clip() -> Tokenizer:
    """Return the tokenizer of CLIP: 49,408 tokens. Raises any error of a damaged file."""
    merges = read_merges(_read(CLIP_FILE).decode())
    return clip_tokenizer(models.BPE(clip_vocabulary(merges), merges, unk_token=END, end_of_word_suffix=END_OF_WORD))


def read_merges(text: str) -> Merges:
    """Return the pairs of a merges.txt, the first of whose lines is its version. Raises `ValueError` for no pair."""
    merges = []
    for line in text.splitlines()[1:]:
        first, second = line.split(" ")
        merges.append((first, second))
    return merges


def clip_vocabulary(merges: Merges) -> dict[str, int]:
    """Return the ids of CLIP's tokens."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    # The other bytes are represented by the letters after the first 256.
    alphabet = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    at_ends = [f"{letter}{END_OF_WORD}" for letter in alphabet]
    tokens = [*alphabet, *at_ends, *(first + second for first, second in merges), BEGIN, END]
    return {token: number for number, token in enumerate(tokens)}


def _read(name: str) -> bytes:
    return gzip.decompress((FOLDER / name).read_bytes())
