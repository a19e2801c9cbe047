"""Pictures as files: PNG, JPEG and WebP, each carrying what it takes to paint the same picture again.

PNG has a writer of its own: the "Up" filter in numpy and ISA-L's deflate are many times faster than a general encoder,
for a file about a tenth larger.

Source: PNG (Portable Network Graphics) Specification, Third Edition, sections 5 (chunks), 9 (filters), 10
(compression) and 11.3.3 (text); the `parameters` text of AUTOMATIC1111/stable-diffusion-webui, `create_infotext` and
`quote`; Exif 2.32, section 4.6.5, `UserComment`.
"""

import io
import json
import re
import struct
from dataclasses import asdict, dataclass, fields

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from allaprima.domain.generation import ImageFormat

__all__ = ["PaintingInfo", "encode", "parameters_text", "read_info"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2
_KEYWORD = "allaprima"
#: What a tEXt chunk may hold: the Latin-1 characters, without the controls, and the line feed.
_TEXT = re.compile(r"[\n\x20-\x7e\xa0-\xff]*")


@dataclass(frozen=True, slots=True)
class PaintingInfo:
    """What decides the pixels of one picture, and nothing else: no time, no host.

    prompt: any text. seed: the image's own. steps: Euler steps. width, height: in pixels. model: its id, such as
    "allaprima/sketch". revision: the version of its weights. precision: how their numbers are kept, such as "int8".
    """

    prompt: str
    seed: int
    steps: int
    width: int
    height: int
    model: str
    revision: str
    precision: str


def encode(pixels: NDArray[np.uint8], info: PaintingInfo | None, image_format: ImageFormat = ImageFormat.PNG) -> bytes:
    """Return the picture as a file: PNG exactly; JPEG at quality 95 without subsampling; WebP at quality 90.

    pixels: (H, W, 3), uint8, RGB, at least one pixel; need not be contiguous. info: written into the file as
    `parameters_text` (PNG text chunk, else EXIF UserComment) and, in a PNG, as what `read_info` reads; None writes
    nothing. The same input gives the same bytes, as long as the encoder libraries and the kind of processor stay.

    Raises ValueError for pixels of another type or shape, for text with lone surrogates (UnicodeEncodeError), and
    for text over what one JPEG segment takes, about 32,000 characters. Safe to call from several threads at once.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"pixels must be uint8 of shape (H, W, 3), not {pixels.dtype} of shape {pixels.shape}")
    if image_format == ImageFormat.PNG:
        return _png(pixels, info)
    exif = b"" if info is None else _exif(parameters_text(info))
    file = io.BytesIO()
    picture = Image.fromarray(pixels)
    if image_format == ImageFormat.JPEG:
        picture.save(file, "JPEG", quality=95, subsampling="4:4:4", exif=exif)
    else:
        picture.save(file, "WEBP", quality=90, exif=exif)
    return file.getvalue()


def read_info(data: bytes) -> PaintingInfo | None:
    """Return the info that `encode` wrote into this PNG, prompt and all to the letter; None if there is none.

    data: any bytes. A file that is not a whole PNG, or whose `allaprima` text is not exactly a PaintingInfo, gives
    None. Decodes the pixels, so Pillow's limit on their number holds.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            text = picture.text.get(_KEYWORD) if isinstance(picture, PngImagePlugin.PngImageFile) else None
        given = None if text is None else json.loads(text)
    # What Pillow raises for a broken file and json for a foreign text; the size limit has an exception of its own.
    except (OSError, SyntaxError, ValueError, LookupError, RecursionError, struct.error, Image.DecompressionBombError):
        return None
    types = {field.name: field.type for field in fields(PaintingInfo)}
    # By type and not isinstance: true is no number of steps.
    if not isinstance(given, dict) or {name: type(value) for name, value in given.items()} != types:
        return None
    return PaintingInfo(**given)


def parameters_text(info: PaintingInfo) -> str:
    r"""Return the text other tools show and read back: the prompt, then one line of settings.

    Line ends become a line feed and NUL is left out, for text chunks know neither; like the original, the whole is
    stripped. Example: "a boat\nSteps: 4, Sampler: Euler, Seed: 7, Size: 512x512, Model hash: 0123456789, Model: a/b".
    """
    prompt = info.prompt.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    settings = {
        "Steps": str(info.steps),
        "Sampler": "Euler",
        "Seed": str(info.seed),
        "Size": f"{info.width}x{info.height}",
        "Model hash": info.revision[:10],
        "Model": info.model,
    }
    line = ", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items())
    return f"{prompt}\n{line}".strip()


def _quoted(value: str) -> str:
    """Return a setting such that readers, who split at commas and colons, get it back whole."""
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n]", value) else value


def _png(pixels: NDArray[np.uint8], info: PaintingInfo | None) -> bytes:
    """Return the picture as an 8-bit RGB PNG with every row filtered by "Up"."""
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, width * 3)
    filtered = np.empty((height, 1 + width * 3), dtype=np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]  # the row above the first counts as zero
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # modulo 256, as the filter wants
    texts = []
    if info is not None:
        # JSON escapes the controls below 0x20, so that any prompt comes back to the letter.
        record = json.dumps(asdict(info), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        texts = [_text_chunk("parameters", parameters_text(info)), _text_chunk(_KEYWORD, record)]
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),  # 8 bit, RGB, not interlaced
            *texts,  # before the pixels, where a reader that only opens the file finds them
            _chunk(b"IDAT", isal_zlib.compress(filtered, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _text_chunk(keyword: str, text: str) -> bytes:
    """Return the text as tEXt if that may hold it, otherwise as uncompressed iTXt without language."""
    name = keyword.encode("ascii")
    if _TEXT.fullmatch(text):
        return _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    return _chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode("utf-8"))


def _chunk(kind: bytes, body: bytes) -> bytes:
    """Return length, kind, body and the CRC of the latter two."""
    crc = isal_zlib.crc32(body, isal_zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(body)), kind, body, struct.pack(">I", crc)))


def _exif(text: str) -> bytes:
    """Return EXIF data whose UserComment is the text, in UTF-16.

    Big-endian throughout: some readers take the byte order of the text from the file, others know no other.
    """
    exif = Image.Exif()
    exif.endian = ">"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif.tobytes()
