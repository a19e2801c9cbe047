"""Encoded images: their pixels, the text that other tools read, and the metadata that generates them again."""

import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from allaprima.domain.generation import GenerationRequest, ImageFormat
from allaprima.engine.encode import ImageMetadata, encode, parameters_text
from tests.image_files import read_metadata

REQUEST = GenerationRequest(
    prompt="a red boat at dawn", seed=7, steps=4, width=512, height=512, model="allaprima/sketch"
)
METADATA = ImageMetadata(REQUEST.metadata(0), "0123456789abcdef0123456789abcdef01234567", "fp32")
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
    """Return an image without hard edges, which lossy formats reproduce closely."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1).astype(np.uint8)


def chunks(data):
    """Return the chunks of a PNG as (kind, body), split by the lengths in the file."""
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def kinds(data):
    return [kind for kind, _ in chunks(data)]


def png_text(data):
    with Image.open(io.BytesIO(data)) as image:
        return {key: str(value) for key, value in image.text.items()}


def user_comment(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]


def changed(**values):
    """Return the metadata with changed request values, without validation."""
    return replace(METADATA, request={**METADATA.request, **values})


@pytest.mark.parametrize("size", [(64, 64), (1440, 512), (512, 1440), (333, 77), (3, 2), (1, 5), (5, 1)], ids=str)
@pytest.mark.parametrize("make", [noise, smooth, lambda w, h: np.full((h, w, 3), 200, np.uint8)])
def test_png_keeps_every_pixel(size, make):
    pixels = make(*size)
    with Image.open(io.BytesIO(encode(pixels, METADATA))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", size)
        assert np.array_equal(np.asarray(image), pixels)


def test_png_keeps_pixels_of_non_contiguous_view():
    pixels = noise(64, 48)[::-1, ::2].transpose(1, 0, 2)
    with Image.open(io.BytesIO(encode(pixels, None))) as image:
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("image_format", ImageFormat)
def test_encode_does_not_modify_pixels(image_format):
    pixels = noise(64, 64)
    before = pixels.copy()
    pixels.flags.writeable = False
    encode(pixels, METADATA, image_format)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_png_checksums_are_correct(prompt):
    with Image.open(io.BytesIO(encode(noise(64, 64), changed(prompt=prompt)))) as image:
        image.verify()


def test_flipped_bit_in_png_is_detected():
    data = bytearray(encode(noise(64, 64), METADATA))
    data[data.index(b"IDAT") + 100] ^= 1
    with Image.open(io.BytesIO(data)) as image, pytest.raises(SyntaxError):
        image.verify()


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_any_prompt_is_read_back_unchanged(prompt):
    metadata = changed(prompt=prompt)
    assert read_metadata(encode(noise(8, 8), metadata)) == json.loads(metadata.to_json())
    assert json.loads(metadata.to_json())["prompt"] == prompt


@given(
    prompt=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    seed=st.integers(0, 2**63 - 1),
    model=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
@settings(deadline=None)
def test_metadata_is_read_back_for_any_text(prompt, seed, model):
    metadata = changed(prompt=prompt, seed=seed, model=model)
    data = encode(noise(4, 4), metadata)
    assert read_metadata(data) == {**metadata.request, "revision": metadata.revision, "precision": "fp32"}
    assert png_text(data)["parameters"] == parameters_text(metadata)


@pytest.mark.parametrize("image_format", ImageFormat)
def test_same_input_gives_same_bytes(image_format):
    metadata = changed(prompt="a fox 🦊")
    assert encode(noise(200, 100), metadata, image_format) == encode(noise(200, 100), replace(metadata), image_format)


@pytest.mark.parametrize("image_format", ImageFormat)
def test_seed_changes_file_bytes(image_format):
    pixels = noise(64, 64)
    assert encode(pixels, METADATA, image_format) != encode(pixels, changed(seed=8), image_format)


def test_parameters_text_is_prompt_and_settings_line():
    assert png_text(encode(noise(8, 8), METADATA))["parameters"] == f"a red boat at dawn\n{SETTINGS}"


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
def test_parameters_text_has_only_line_feeds_and_no_nul(prompt, shown):
    assert parameters_text(changed(prompt=prompt)) == shown + SETTINGS


def test_model_name_with_separators_is_quoted():
    text = parameters_text(replace(changed(model='me/a, "b": c'), revision="v1:final"))
    assert text.endswith('Model hash: "v1:final", Model: "me/a, \\"b\\": c"')


def test_allaprima_text_is_compact_sorted_json():
    metadata = changed(prompt='une "forêt"')
    record = png_text(encode(noise(8, 8), metadata))["allaprima"]
    assert record == (
        '{"height":512,"model":"allaprima/sketch","precision":"fp32","prompt":"une \\"forêt\\"",'
        '"revision":"0123456789abcdef0123456789abcdef01234567","seed":7,"steps":4,"width":512}'
    )


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [("a café\n100 °C", b"tEXt"), ("船", b"iTXt"), ("🦊", b"iTXt"), ("€", b"iTXt"), ("\x7f", b"iTXt")],
)
def test_text_outside_latin_1_is_written_as_itxt(prompt, kind):
    data = encode(noise(8, 8), changed(prompt=prompt))
    assert kinds(data) == [b"IHDR", kind, kind, b"IDAT", b"IEND"]


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_text_chunks_hold_no_forbidden_bytes(prompt):
    for kind, body in chunks(encode(noise(8, 8), changed(prompt=prompt))):
        if kind == b"tEXt":
            _, text = body.split(b"\0", 1)
            assert not set(text) & {*range(10), *range(11, 32), *range(0x7F, 0xA0)}
        if kind == b"iTXt":
            _, rest = body.split(b"\0", 1)
            assert rest.startswith(b"\0\0\0\0")  # not compressed, no language, no translated keyword
            assert b"\0" not in rest[4:]
            assert b"\r" not in rest[4:]


@pytest.mark.parametrize("image_format", LOSSY)
def test_lossy_formats_decode_to_similar_pixels(image_format):
    pixels = smooth(160, 96)
    with Image.open(io.BytesIO(encode(pixels, METADATA, image_format))) as image:
        assert (image.format.lower(), image.size) == (image_format, (160, 96))
        error = np.abs(np.asarray(image.convert("RGB")).astype(int) - pixels)
    assert error.mean() < 2
    assert error.max() < 16


def test_jpeg_keeps_colour_of_single_pixels():
    """Subsampled colour would blur red and blue columns into one purple."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2, 0] = pixels[:, 1::2, 2] = 200
    with Image.open(io.BytesIO(encode(pixels, None, ImageFormat.JPEG))) as image:
        assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 8


@pytest.mark.parametrize("image_format", LOSSY)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_lossy_formats_carry_parameters_text(image_format, prompt):
    metadata = changed(prompt=prompt)
    comment = user_comment(encode(smooth(64, 64), metadata, image_format))
    assert comment == b"UNICODE\0" + parameters_text(metadata).encode("utf-16-be")


@pytest.mark.parametrize("image_format", LOSSY)
def test_exif_and_its_text_have_same_byte_order(image_format):
    with Image.open(io.BytesIO(encode(smooth(64, 64), METADATA, image_format))) as image:
        exif = image.getexif()
    assert exif.endian == ">"


@pytest.mark.parametrize("image_format", ImageFormat)
def test_file_without_metadata_has_no_text(image_format):
    data = encode(smooth(64, 64), None, image_format)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert not image.getexif()
        assert not getattr(image, "text", {})
    assert b"Steps" not in data
    assert read_metadata(data) is None


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
def test_pixels_of_wrong_type_or_shape_are_refused(pixels, named, image_format):
    with pytest.raises(ValueError, match=rf"\(H, W, 3\), not {named}"):
        encode(pixels, METADATA, image_format)


@pytest.mark.parametrize("image_format", ImageFormat)
def test_prompt_with_lone_surrogate_is_refused(image_format):
    with pytest.raises(ValueError, match="surrogates not allowed"):
        encode(noise(8, 8), changed(prompt="\ud800"), image_format)


def test_prompt_longer_than_jpeg_segment_is_refused():
    with pytest.raises(ValueError, match="too long"):
        encode(noise(8, 8), changed(prompt="a" * 40_000), ImageFormat.JPEG)


def test_each_format_has_its_media_type():
    assert [(f, f.content_type) for f in ImageFormat] == [
        ("png", "image/png"),
        ("jpeg", "image/jpeg"),
        ("webp", "image/webp"),
    ]
