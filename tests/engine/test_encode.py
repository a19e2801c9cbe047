"""What an encoded picture promises: the pixels, the text other tools read, and the info that paints it again."""

import io
import json
import struct
import zlib
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, PngImagePlugin

from allaprima.domain.generation import ImageFormat
from allaprima.engine.encode import PaintingInfo, encode, parameters_text, read_info

INFO = PaintingInfo(
    prompt="a red boat at dawn",
    seed=7,
    steps=4,
    width=512,
    height=512,
    model="allaprima/sketch",
    revision="0123456789abcdef0123456789abcdef01234567",
    precision="fp32",
)
SETTINGS = "Steps: 4, Sampler: Euler, Seed: 7, Size: 512x512, Model hash: 0123456789, Model: allaprima/sketch"
LOSSY = [ImageFormat.JPEG, ImageFormat.WEBP]
PROMPTS = {
    "emoji": "a fox 🦊 and its family 👨‍👩‍👧",
    "Chinese": "一艘红色的船",
    "Latin-1": "un café à Zürich, 50 °C",
    "newlines": "first\nsecond\r\nthird\rfourth",
    "tab and controls": "a\tb\x01c\x7fd\x85e",
    "very long": "boat, " * 666 + "boat",
    "very long and not Latin-1": "船 " * 2000,
    "quotes": 'a "sign" that says \'it\\\'s\', {"a": [1]}',
    "like settings": "a boat\nNegative prompt: none\nSteps: 99, Seed: 1, Size: 1x1",
    "empty": "",
    "NUL": "a\0b",
}


def noise(width, height):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width, height):
    """A picture without hard edges, which lossy formats keep closely."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1).astype(np.uint8)


def chunks(data):
    """Return [(kind, body)] of a PNG, by its own lengths."""
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def kinds(data):
    return [kind for kind, _ in chunks(data)]


def png_text(data):
    with Image.open(io.BytesIO(data)) as picture:
        return {key: str(value) for key, value in picture.text.items()}


def user_comment(data):
    with Image.open(io.BytesIO(data)) as picture:
        return picture.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]


def foreign_png(**texts):
    """Return a PNG by another writer with these text chunks."""
    chunk = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        chunk.add_text(key, value)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=chunk)
    return file.getvalue()


@pytest.mark.parametrize("size", [(64, 64), (1440, 512), (512, 1440), (333, 77), (3, 2), (1, 5), (5, 1)], ids=str)
@pytest.mark.parametrize("make", [noise, smooth, lambda w, h: np.full((h, w, 3), 200, np.uint8)])
def test_png_keeps_every_pixel(size, make):
    pixels = make(*size)
    with Image.open(io.BytesIO(encode(pixels, INFO))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", size)
        assert np.array_equal(np.asarray(picture), pixels)


def test_png_keeps_every_pixel_of_a_view_that_is_not_contiguous():
    pixels = noise(64, 48)[::-1, ::2].transpose(1, 0, 2)
    with Image.open(io.BytesIO(encode(pixels, None))) as picture:
        assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("image_format", ImageFormat)
def test_encoding_leaves_the_pixels_alone_and_takes_read_only_ones(image_format):
    pixels = noise(64, 64)
    before = pixels.copy()
    pixels.flags.writeable = False
    encode(pixels, INFO, image_format)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_png_checksums_are_right(prompt):
    with Image.open(io.BytesIO(encode(noise(64, 64), replace(INFO, prompt=prompt)))) as picture:
        picture.verify()


def test_a_flipped_bit_in_the_png_is_noticed():
    data = bytearray(encode(noise(64, 64), INFO))
    data[data.index(b"IDAT") + 100] ^= 1
    with Image.open(io.BytesIO(data)) as picture, pytest.raises(SyntaxError):
        picture.verify()


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_any_prompt_reads_back_to_the_letter(prompt):
    info = replace(INFO, prompt=prompt)
    assert read_info(encode(noise(8, 8), info)) == info


@given(
    prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    seed=st.integers(0, 2**63 - 1),
    model=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
@settings(deadline=None)
def test_info_reads_back_whatever_the_text(prompt, seed, model):
    info = replace(INFO, prompt=prompt, seed=seed, model=model)
    data = encode(noise(4, 4), info)
    assert read_info(data) == info
    assert png_text(data)["parameters"] == parameters_text(info)


@pytest.mark.parametrize("image_format", ImageFormat)
def test_same_input_gives_the_same_bytes(image_format):
    info = replace(INFO, prompt="a fox 🦊")
    assert encode(noise(200, 100), info, image_format) == encode(noise(200, 100), replace(info), image_format)


@pytest.mark.parametrize("image_format", ImageFormat)
def test_another_seed_changes_the_bytes(image_format):
    pixels = noise(64, 64)
    assert encode(pixels, INFO, image_format) != encode(pixels, replace(INFO, seed=8), image_format)


def test_the_parameters_text_is_the_prompt_and_a_line_of_settings():
    assert png_text(encode(noise(8, 8), INFO))["parameters"] == f"a red boat at dawn\n{SETTINGS}"


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a boat\non a lake", "a boat\non a lake\n"),
        ("a boat\r\non\ra lake", "a boat\non\na lake\n"),
        ("a\0b", "ab\n"),
        ("  a boat ", "a boat \n"),
        ("", ""),
    ],
)
def test_the_parameters_text_has_line_feeds_only_and_no_nul(prompt, shown):
    assert parameters_text(replace(INFO, prompt=prompt)) == shown + SETTINGS


def test_a_model_name_that_would_break_the_line_is_quoted():
    text = parameters_text(replace(INFO, model='me/a, "b": c', revision="v1:final"))
    assert text.endswith('Model hash: "v1:final", Model: "me/a, \\"b\\": c"')


def test_the_allaprima_text_is_compact_sorted_json():
    info = replace(INFO, prompt='une "forêt"')
    record = png_text(encode(noise(8, 8), info))["allaprima"]
    assert record == (
        '{"height":512,"model":"allaprima/sketch","precision":"fp32","prompt":"une \\"forêt\\"",'
        '"revision":"0123456789abcdef0123456789abcdef01234567","seed":7,"steps":4,"width":512}'
    )
    assert json.loads(record) == asdict(info)


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [("a café\n100 °C", b"tEXt"), ("船", b"iTXt"), ("🦊", b"iTXt"), ("€", b"iTXt"), ("\x7f", b"iTXt")],
)
def test_text_beyond_printable_latin_1_goes_into_international_chunks(prompt, kind):
    data = encode(noise(8, 8), replace(INFO, prompt=prompt))
    assert kinds(data) == [b"IHDR", kind, kind, b"IDAT", b"IEND"]


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_no_text_chunk_holds_a_forbidden_byte(prompt):
    for kind, body in chunks(encode(noise(8, 8), replace(INFO, prompt=prompt))):
        if kind == b"tEXt":
            _, text = body.split(b"\0", 1)
            assert not set(text) & {*range(10), *range(11, 32), *range(0x7F, 0xA0)}
        if kind == b"iTXt":
            _, rest = body.split(b"\0", 1)
            assert rest.startswith(b"\0\0\0\0")  # not compressed, no language, no translated keyword
            assert b"\0" not in rest[4:]
            assert b"\r" not in rest[4:]


@pytest.mark.parametrize("image_format", LOSSY)
def test_lossy_formats_decode_to_near_pixels(image_format):
    pixels = smooth(160, 96)
    with Image.open(io.BytesIO(encode(pixels, INFO, image_format))) as picture:
        assert (picture.format.lower(), picture.size) == (image_format, (160, 96))
        error = np.abs(np.asarray(picture.convert("RGB")).astype(int) - pixels)
    assert error.mean() < 2
    assert error.max() < 16


def test_jpeg_keeps_the_colour_of_single_pixels():
    """Subsampled colour would blur red and blue columns into one purple."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2, 0] = pixels[:, 1::2, 2] = 200
    with Image.open(io.BytesIO(encode(pixels, None, ImageFormat.JPEG))) as picture:
        assert np.abs(np.asarray(picture).astype(int) - pixels).mean() < 8


@pytest.mark.parametrize("image_format", LOSSY)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_lossy_formats_carry_the_parameters_text(image_format, prompt):
    info = replace(INFO, prompt=prompt)
    comment = user_comment(encode(smooth(64, 64), info, image_format))
    assert comment == b"UNICODE\0" + parameters_text(info).encode("utf-16-be")


@pytest.mark.parametrize("image_format", LOSSY)
def test_the_byte_order_of_the_file_is_that_of_the_text(image_format):
    with Image.open(io.BytesIO(encode(smooth(64, 64), INFO, image_format))) as picture:
        exif = picture.getexif()
    assert exif.endian == ">"


@pytest.mark.parametrize("image_format", ImageFormat)
def test_without_info_the_file_carries_no_text(image_format):
    data = encode(smooth(64, 64), None, image_format)
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert not picture.getexif()
        assert not getattr(picture, "text", {})
    assert b"Steps" not in data
    assert read_info(data) is None


@pytest.mark.parametrize("image_format", LOSSY)
def test_lossy_files_give_no_info(image_format):
    assert read_info(encode(smooth(64, 64), INFO, image_format)) is None


@pytest.mark.parametrize(
    "record",
    [
        "hello",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps({**asdict(INFO), "more": 1}),
        json.dumps({**asdict(INFO), "seed": "7"}),
        json.dumps({**asdict(INFO), "steps": True}),
    ],
    ids=["no JSON", "null", "a list", "nothing in it", "too deep", "one field more", "a text seed", "true for steps"],
)
def test_a_foreign_allaprima_text_gives_no_info(record):
    assert read_info(foreign_png(allaprima=record)) is None


def test_a_foreign_png_gives_no_info():
    assert read_info(foreign_png()) is None
    assert read_info(foreign_png(parameters=parameters_text(INFO), Software="another")) is None


def test_info_survives_another_writer_that_copies_the_text():
    assert read_info(foreign_png(allaprima=json.dumps(asdict(INFO)))) == INFO


def test_bytes_that_are_no_whole_png_give_no_info():
    data = encode(noise(64, 64), INFO)
    assert read_info(b"") is None
    assert read_info(b"not a picture") is None
    for length in range(0, data.index(b"IDAT") + 1000, 7):
        assert read_info(data[:length]) is None


def test_a_png_with_a_malformed_colour_profile_gives_no_info():
    data = encode(noise(8, 8), INFO)
    body = b"iCCPname\0"  # ends before the compression method
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    assert read_info(data[:33] + chunk + data[33:]) is None  # right after the header


@given(at=st.integers(0, 1000), bit=st.integers(0, 7))
@settings(deadline=None)
def test_a_damaged_png_gives_the_info_or_none(at, bit):
    data = bytearray(encode(noise(8, 8), INFO))
    data[at % len(data)] ^= 1 << bit
    assert read_info(bytes(data)) in {INFO, None}


@pytest.mark.parametrize(
    ("pixels", "named"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 of shape \(8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.int8), r"int8 of shape \(8, 8, 3\)"),
        (np.zeros((8, 8), np.uint8), r"uint8 of shape \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 of shape \(8, 8, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 of shape \(3, 8, 8\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"uint8 of shape \(1, 8, 8, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), r"uint8 of shape \(0, 8, 3\)"),
    ],
)
@pytest.mark.parametrize("image_format", ImageFormat)
def test_pixels_of_another_type_or_shape_are_refused_by_name(pixels, named, image_format):
    with pytest.raises(ValueError, match=rf"\(H, W, 3\), not {named}"):
        encode(pixels, INFO, image_format)


@pytest.mark.parametrize("image_format", ImageFormat)
def test_a_prompt_with_a_lone_surrogate_is_refused(image_format):
    with pytest.raises(ValueError, match="surrogates not allowed"):
        encode(noise(8, 8), replace(INFO, prompt="\ud800"), image_format)


def test_a_prompt_too_long_for_a_jpeg_segment_is_refused():
    with pytest.raises(ValueError, match="too long"):
        encode(noise(8, 8), replace(INFO, prompt="a" * 40_000), ImageFormat.JPEG)


def test_formats_name_their_media_type():
    assert [(f, f.content_type) for f in ImageFormat] == [
        ("png", "image/png"),
        ("jpeg", "image/jpeg"),
        ("webp", "image/webp"),
    ]
