"""Files that are neither safetensors nor GGUF are refused with what they are, and sound files are recognised."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from allaprima.errors import WeightsCorrupt, WeightsUnsafe
from allaprima.weights.formats.container import open_container

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 23782506688\n"
GATED = b"Access to model black-forest-labs/FLUX.1-schnell is restricted. You must be authenticated to access it."


def written(folder: Path, data: bytes) -> Path:
    file = folder / "flux1-schnell.safetensors"
    file.write_bytes(data)
    return file


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    file = tmp_path / "sound.safetensors"
    save_file({"a": torch.ones(8, 8), "b": torch.arange(4.0)}, file)
    return file


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("pages", [0, 1, 16])
def test_safetensors_file_whose_length_looks_like_a_pickle_is_read(
    tmp_path: Path, sound: Path, protocol: int, pages: int
) -> None:
    data = sound.read_bytes()
    length = int.from_bytes(data[:8], "little")
    wanted = 65_536 * pages + 0x80 + 256 * protocol
    header = data[8 : 8 + length].ljust(wanted)
    file = written(tmp_path, wanted.to_bytes(8, "little") + header + data[8 + length :])
    assert file.read_bytes()[:2] == bytes([0x80, protocol])
    container = open_container(file)
    assert all(torch.equal(container.read(name), tensor) for name, tensor in load_file(sound).items())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; download it again"),
        (bytes(10_000), "holds only zeros: its download broke off; download it again"),
        (POINTER, "is a git-lfs pointer, not the file itself; run `git lfs pull`"),
        (
            GATED,
            r"is a text that was saved under the file's name \('Access to model .*\); .*token if the model is gated",
        ),
        (b"\n <!DOCTYPE html><html>" + b"x" * 9000, "is a web page that was saved .*download it again"),
        ("\ufeff<html>\u00e9".encode(), "is a web page"),
        (("\u00e9" * 4000).encode(), "is a text"),
        ("Zugriff verweigert".encode("utf-16"), "is a text"),
        (b'{"error": "Entry not found"}', "is a text"),
        (gzip.compress(b"x", mtime=0), r"is an archive \(gzip\); unpack it"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(20), r"is an archive \(7z\)"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(20), r"is an archive \(RAR\)"),
        (b"\x10\x00", "is cut short: it has 2 bytes|is a text"),
        (b"\x01\xff\xfe\xfd" * 100, "is not a readable safetensors file"),
        ((2**40).to_bytes(8, "little") + b"{}", "is not a readable safetensors file"),
        ((5000).to_bytes(8, "little") + b'{"a"', r"lacks 4996 of the 5008 bytes of its header; the download broke off"),
    ],
)
def test_file_that_is_no_weights_is_refused_with_what_it_is(tmp_path: Path, data: bytes, message: str) -> None:
    file = written(tmp_path, data)
    with pytest.raises(WeightsCorrupt, match=f"{file} ({message})") as caught:
        open_container(file)
    assert "\n" not in caught.value.message


def test_file_cut_short_is_refused_with_the_missing_bytes(tmp_path: Path, sound: Path) -> None:
    data = sound.read_bytes()
    file = written(tmp_path, data[:-100])
    with pytest.raises(WeightsCorrupt, match=f"{file} lacks 100 of its {len(data)} bytes; the download broke off"):
        open_container(file)


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x05\x95{{{{{{"])
def test_pickle_is_refused_as_unsafe(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(WeightsUnsafe, match="is a pickle"):
        open_container(written(tmp_path, data))


def test_tensors_out_of_order_are_read_and_a_name_twice_is_refused(tmp_path: Path) -> None:
    first = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}
    second = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": first, "b": second}).encode()
    values = torch.arange(4.0).numpy().tobytes()
    file = written(tmp_path, len(header).to_bytes(8, "little") + header + values)
    container = open_container(file)
    assert all(torch.equal(container.read(name), tensor) for name, tensor in load_file(file).items())

    twice = header[:-1] + b', "b": ' + json.dumps(second).encode() + b"}"
    file = written(tmp_path, len(twice).to_bytes(8, "little") + twice + values)
    with pytest.raises(WeightsCorrupt, match="has the key 'b' twice"):
        open_container(file)


def test_header_that_would_take_much_memory_is_refused_by_its_size(tmp_path: Path) -> None:
    file = tmp_path / "large.safetensors"
    header = b"{" + b" " * 2**24 + b"}"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsCorrupt, match=r"large.safetensors has a header of 16777218 bytes, of which at most"):
        open_container(file)
