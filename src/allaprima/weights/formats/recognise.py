"""Says what a file is that is neither safetensors nor GGUF, from its first bytes."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from pathlib import Path

from allaprima.errors import WeightsCorrupt, WeightsError, WeightsUnsafe

#: Number of bytes at the start of a file that are looked at.
HEAD = 4096
#: Longest header that the safetensors library accepts, in bytes.
MAX_HEADER = 100_000_000
_ZIP = b"PK\x03\x04"
#: First bytes of pickle files: a zip archive (`torch.save`, `.pt2`), or pickle protocols 2 to 5.
_PICKLES = (_ZIP, b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
#: First bytes of archives.
_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"BZh": "bzip2",
}
_LFS_POINTER = b"version https://git-lfs"
_AGAIN = "download it again"
#: Longest piece of a text that an error quotes.
_QUOTED = 60
#: Longest name of a tensor in characters.
_LONGEST_NAME = 512


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins like a safetensors file: with the header's length and a brace."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER


def check_names(path: Path, names: Iterable[str]) -> None:
    """Check that messages can show the names of a file's tensors. Raises `WeightsCorrupt` naming the file."""
    for name in names:
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise WeightsCorrupt(
                f"{path} has a tensor whose name is too long or not printable ({name[:_QUOTED]!a}); it is damaged, so "
                "download it again"
            )


def refusal(path: Path, head: bytes) -> WeightsError | None:
    """Return the error for a file that is known to be no file of weights; None for a file of no known kind.

    head: the first `HEAD` bytes of the file.
    """
    if not head:
        return WeightsCorrupt(f"{path} is empty; {_AGAIN}")
    archive = _archive(path, head)
    if archive is not None:
        return WeightsCorrupt(f"{path} is an archive ({archive}); unpack it and use the file in it")
    if head.startswith(_PICKLES):
        return WeightsUnsafe(
            f"{path} is a pickle (.pt, .ckpt, .bin or .pt2): opening it runs the code that it contains; "
            "use the model's safetensors or GGUF files"
        )
    if head.startswith(_LFS_POINTER):
        return WeightsCorrupt(
            f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull` in its folder, or download the file"
        )
    if not head.strip(b"\0"):
        return WeightsCorrupt(f"{path} holds only zeros: its download broke off; {_AGAIN}")
    return _text(path, head)


def _archive(path: Path, head: bytes) -> str | None:
    """Return the kind of an archive; None for another file. A zip archive of another name may be a pickle."""
    if head.startswith(_ZIP) and path.suffix.lower() == ".zip":
        return "zip"
    return next((name for magic, name in _ARCHIVES.items() if head.startswith(magic)), None)


def _text(path: Path, head: bytes) -> WeightsError | None:
    """Return the error for a page or another text that was saved under the name of a file of weights."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        # A character may be cut at the end of `head`.
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return None
    if not text.strip() or not all(one.isprintable() or one in "\t\n\r\f" for one in text):
        return None
    what = "a web page" if text.lstrip().startswith("<") else "a text"
    quoted = " ".join(text.split())[:_QUOTED]
    return WeightsCorrupt(
        f"{path} is {what} that was saved under the file's name ({quoted!r}); {_AGAIN}, with an access token if "
        "the model is gated"
    )
