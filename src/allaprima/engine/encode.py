"""Encodes images as PNG, JPEG or WebP files. Each file contains the parameters that generate the same image again.

The PNG encoder is allaprima's own: the "Up" filter in numpy and ISA-L's deflate are many times faster than a general
encoder, and the file is about a tenth larger.

Source: PNG (Portable Network Graphics) Specification, Third Edition, sections 5 (chunks), 9 (filters), 10
(compression) and 11.3.3 (text); the `parameters` text of AUTOMATIC1111/stable-diffusion-webui, `create_infotext` and
`quote`; Exif 2.32, section 4.6.5, `UserComment`.
"""

import io
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import ExifTags, Image

from allaprima.domain.generation import ImageFormat

__all__ = ["ImageMetadata", "encode", "parameters_text"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP_FILTER = 2
#: Keyword of the text chunk that has the metadata as JSON.
_KEYWORD = "allaprima"
#: The text that a tEXt chunk can contain: Latin-1 without control characters except the line feed.
_TEXT = re.compile(r"[\n\x20-\x7e\xa0-\xff]*")


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """The values that determine the pixels of one image, and no others, such as the time or the host."""

    #: `GenerationRequest.metadata` of this image: prompt, model, width, height, steps, seed.
    request: Mapping[str, Any]
    #: Hash of the model's weights.
    revision: str
    #: Number format of the weights, a `Precision`.
    precision: str

    def to_json(self) -> str:
        """Return all values as one JSON object, compact and sorted by name."""
        values = {**self.request, "revision": self.revision, "precision": self.precision}
        return json.dumps(values, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def encode(
    pixels: NDArray[np.uint8], metadata: ImageMetadata | None, image_format: ImageFormat = ImageFormat.PNG
) -> bytes:
    """Return the image as a file: PNG lossless; JPEG at quality 95 without chroma subsampling; WebP at quality 90.

    pixels: (H, W, 3), uint8, RGB, at least one pixel, contiguous or not. metadata: written as `parameters_text` (in a
    PNG text chunk, otherwise in the EXIF UserComment) and, in a PNG, also as JSON in a text chunk named `allaprima`;
    None writes neither. The same input gives the same bytes with the same encoder libraries on the same processor type.

    Raises ValueError for pixels of another dtype or shape, for text with lone surrogates (UnicodeEncodeError), and for
    text that exceeds one JPEG segment, about 32,000 characters. Thread-safe.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"pixels must be uint8 of shape (H, W, 3), not {pixels.dtype} of shape {pixels.shape}")
    if image_format == ImageFormat.PNG:
        return _png(pixels, metadata)
    exif = b"" if metadata is None else _exif(parameters_text(metadata))
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if image_format == ImageFormat.JPEG:
        image.save(file, "JPEG", quality=95, subsampling="4:4:4", exif=exif)
    else:
        image.save(file, "WEBP", quality=90, exif=exif)
    return file.getvalue()


def parameters_text(metadata: ImageMetadata) -> str:
    r"""Return the parameters in the text format of AUTOMATIC1111: the prompt, then one line of settings.

    Text chunks allow neither CR nor NUL, so line ends become a line feed and NUL is removed. White space at both ends
    is stripped, as in `create_infotext`. Example: "a boat\nSteps: 4, Sampler: Euler, Seed: 7, Size: 512x512, Model
    hash: 0123456789, Model: a/b".
    """
    request = metadata.request
    prompt = request["prompt"].replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    settings = {
        "Steps": str(request["steps"]),
        "Sampler": "Euler",
        "Seed": str(request["seed"]),
        "Size": f"{request['width']}x{request['height']}",
        "Model hash": metadata.revision[:10],
        "Model": request["model"],
    }
    line = ", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items())
    return f"{prompt}\n{line}".strip()


def _quoted(value: str) -> str:
    """Return a setting, in quotes if it contains a character at which parsers of the text split it."""
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n]", value) else value


def _png(pixels: NDArray[np.uint8], metadata: ImageMetadata | None) -> bytes:
    """Return the image as an 8-bit RGB PNG with every row filtered by "Up"."""
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, width * 3)
    filtered = np.empty((height, 1 + width * 3), dtype=np.uint8)
    filtered[:, 0] = _UP_FILTER
    filtered[0, 1:] = rows[0]  # the filter defines the row above the first as zero
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # uint8 subtraction is modulo 256, as the filter requires
    texts = []
    if metadata is not None:
        # JSON escapes control characters, so a reader recovers every prompt unchanged.
        texts = [_text_chunk("parameters", parameters_text(metadata)), _text_chunk(_KEYWORD, metadata.to_json())]
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),  # 8 bit, RGB, not interlaced
            *texts,  # before IDAT, so that a reader finds them without reading the pixels
            _chunk(b"IDAT", isal_zlib.compress(filtered, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _text_chunk(keyword: str, text: str) -> bytes:
    """Return the text as a tEXt chunk if `_TEXT` matches it, otherwise as an uncompressed iTXt chunk (UTF-8)."""
    name = keyword.encode("ascii")
    if _TEXT.fullmatch(text):
        return _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    return _chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode("utf-8"))


def _chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk: length of the body, type, body, and CRC-32 of type and body."""
    crc = isal_zlib.crc32(body, isal_zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(body)), kind, body, struct.pack(">I", crc)))


def _exif(text: str) -> bytes:
    """Return EXIF data whose UserComment is the text, in UTF-16.

    Both the EXIF data and the text are big-endian: some readers assume that the text has the byte order of the EXIF
    data, and others support only big-endian text.
    """
    exif = Image.Exif()
    exif.endian = ">"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be")
    return exif.tobytes()
