"""GGUF files: tensors and header equal those of the `gguf` library, and damaged or unsupported files are refused."""

import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from allaprima.errors import WeightsCorrupt
from allaprima.weights.formats.container import open_container
from allaprima.weights.formats.gguf import GGUFContainer
from allaprima.weights.formats.gguf_header import read_header
from tests.weights.published import write_gguf


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "F32"])
def test_dequantized_blocks_equal_gguf_library(tmp_path: Path, kind: str) -> None:
    quantization = gguf.GGMLQuantizationType[kind]
    values = torch.randn(6, 64, generator=torch.Generator().manual_seed(1))
    write_gguf(tmp_path / "one.gguf", {"matrix": values, "vector": values[0]}, quantization)
    read = open_container(tmp_path / "one.gguf")
    assert read.shapes == {"matrix": (6, 64), "vector": (64,)}
    wanted = gguf.dequantize(gguf.quantize(values.numpy(), quantization), quantization)
    assert np.array_equal(read.read("matrix").float().numpy(), wanted.astype(np.float32))
    assert torch.equal(read.read("vector"), values[0])


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_dequantized_random_blocks_equal_gguf_library(tmp_path: Path, kind: str) -> None:
    quantization = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[quantization]
    columns = 512
    packed = np.random.default_rng(3).integers(0, 255, (4, columns // block * size), dtype=np.uint8)
    # The position of the half-precision scales differs with the type; small bytes keep them all finite.
    packed &= 0x3B
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "flux")
    writer.add_tensor("matrix", packed, raw_dtype=quantization)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    read = open_container(tmp_path / "one.gguf")
    assert read.shapes == {"matrix": (4, columns)}
    assert np.array_equal(read.read("matrix").numpy(), gguf.dequantize(packed, quantization))


def write(path: Path, change: Callable[[gguf.GGUFWriter], object] = id, endian: gguf.GGUFEndian | None = None) -> Path:
    """Write a file with two tensors and the fields that a test adds."""
    writer = gguf.GGUFWriter(path, "flux", endianess=endian or gguf.GGUFEndian.LITTLE)
    change(writer)
    writer.add_tensor("first", np.arange(8, dtype=np.float32))
    writer.add_tensor("other", np.ones((3, 32), np.float32))
    for finish in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        finish()
    writer.close()
    return path


def add_fields(writer: gguf.GGUFWriter) -> None:
    """Add a field of every type."""
    writer.add_string("text", "größer 🦖")
    for name in ("uint8", "uint16", "uint32", "uint64"):
        getattr(writer, f"add_{name}")(name, 7)
    for name in ("int8", "int16", "int32", "int64"):
        getattr(writer, f"add_{name}")(name, -7)
    writer.add_float32("float32", 0.5)
    writer.add_float64("float64", 0.25)
    writer.add_bool("true", val=True)
    writer.add_bool("false", val=False)
    writer.add_array("strings", ["a", "", "größer"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("floats", [1.5, -2.5])
    writer.add_array("bytes", b"\x00\xff")
    writer.add_key_value("nested", [[1, 2], [3]], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.ARRAY)


def open_gguf(path: Path) -> GGUFContainer:
    container = open_container(path)
    assert isinstance(container, GGUFContainer)
    return container


# Headers --------------------------------------------------------------------------------------------------------------


def test_metadata_has_every_number_and_string_as_text(tmp_path: Path) -> None:
    container = open_gguf(write(tmp_path / "one.gguf", add_fields))

    unsigned = dict.fromkeys(("uint8", "uint16", "uint32", "uint64"), "7")
    signed = dict.fromkeys(("int8", "int16", "int32", "int64"), "-7")
    others = {"text": "größer 🦖", "float32": "0.5", "float64": "0.25", "true": "true", "false": "false"}
    assert container.metadata == {"general.architecture": "flux"} | unsigned | signed | others


def test_arrays_are_decoded_when_they_are_asked_for(tmp_path: Path) -> None:
    container = open_gguf(write(tmp_path / "one.gguf", add_fields))

    assert container.arrays == {"strings", "numbers", "floats", "bytes", "nested"}
    assert container.array("strings") == ["a", "", "größer"]
    for name, values in {"numbers": [1, -2, 3], "floats": [1.5, -2.5], "bytes": [0, 255]}.items():
        assert np.array_equal(container.array(name), values)
    assert container.array("text") is None
    with pytest.raises(WeightsCorrupt, match=r"one.gguf: the array nested can't be read: it is an array of arrays"):
        container.array("nested")


def test_tensors_are_where_gguf_library_finds_them(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gguf", lambda writer: (add_fields(writer), writer.add_custom_alignment(128)))

    found = read_header(path).tensors

    for tensor in gguf.GGUFReader(write(tmp_path / "plain.gguf")).tensors:
        assert found[tensor.name].shape == tuple(reversed(tensor.shape.tolist()))
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name in found}
    for name, entry in found.items():
        assert (entry.offset, entry.nbytes) == (theirs[name].data_offset, theirs[name].n_bytes)


def test_header_of_language_model_is_read(tmp_path: Path) -> None:
    """Qwen3's header has 6 MB."""

    def change(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"token {number} with some more text" for number in range(150_000)])

    path = write(tmp_path / "llm.gguf", change)

    assert path.stat().st_size > 5_000_000
    assert open_gguf(path).metadata["tokenizer.ggml.model"] == "gpt2"


def test_string_of_over_1_mib_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gguf", lambda writer: writer.add_string("tokenizer.huggingface.json", "x" * 2**21))

    container = open_gguf(path)

    assert "tokenizer.huggingface.json" not in container.metadata
    assert container.read("first").tolist() == list(range(8))


def test_description_in_another_encoding_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gguf", lambda writer: writer.add_string("general.author", b"J\xf6rg"))
    assert open_gguf(path).metadata["general.author"] == "J\ufffdrg"


# Refusals -------------------------------------------------------------------------------------------------------------


def test_file_cut_at_any_byte_is_refused_with_missing_bytes(tmp_path: Path) -> None:
    whole = write(tmp_path / "one.gguf", add_fields).read_bytes()
    cut = tmp_path / "cut.gguf"
    # The last tensor fills its 32-byte lines, so no padding follows it.
    for length in range(4, len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(WeightsCorrupt) as caught:
            open_container(cut)
        message = str(caught.value)
        assert message.startswith(f"{cut} is cut short"), message
        assert f"it has {length} bytes, and " in message
        assert "\n" not in message
    cut.write_bytes(whole[: len(whole) - 10])
    with pytest.raises(WeightsCorrupt, match="and 10 are missing at its end"):
        open_container(cut)


def test_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "one.gguf").touch()
    with pytest.raises(WeightsCorrupt, match=r"one.gguf is empty; download it again"):
        open_container(tmp_path / "one.gguf")


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (1, "is GGUF version 1, an old version; convert the model again"),
        (4, "is GGUF version 4, which allaprima can't read"),
    ],
)
def test_other_version_is_refused_by_name(tmp_path: Path, version: int, reason: str) -> None:
    path = write(tmp_path / "one.gguf")
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack("<I", version) + data[8:])
    with pytest.raises(WeightsCorrupt, match=f"{path} {reason}"):
        open_container(path)


def test_version_2_is_read_as_version_3(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gguf")
    data = path.read_bytes()
    new = open_container(path)
    old = tmp_path / "old.gguf"
    old.write_bytes(data[:4] + struct.pack("<I", 2) + data[8:])
    read = open_container(old)
    assert read.shapes == new.shapes
    assert all(torch.equal(read.read(name), new.read(name)) for name in new.shapes)


def test_big_endian_file_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gguf", endian=gguf.GGUFEndian.BIG)
    with pytest.raises(WeightsCorrupt, match=f"{path} is a big-endian GGUF file; take the little-endian file"):
        open_container(path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "flux-00002-of-00003.gguf",
            r"join flux-00001-of-00003.gguf to flux-00003-of-00003.gguf with `llama-gguf-split --merge flux-\S+ f",
        ),
        ("renamed.gguf", "join its parts with `llama-gguf-split --merge FIRST_PART OUTPUT`"),
    ],
)
def test_part_of_split_model_is_refused_with_its_parts(tmp_path: Path, name: str, advice: str) -> None:
    path = write(tmp_path / name, lambda writer: writer.add_uint16("split.count", 3))
    with pytest.raises(WeightsCorrupt, match=f"{path} is one of 3 parts of a split model; {advice}"):
        open_container(path)


def test_only_part_of_a_model_is_read(tmp_path: Path) -> None:
    assert open_container(write(tmp_path / "one.gguf", lambda writer: writer.add_uint16("split.count", 1)))


@pytest.mark.parametrize(
    ("position", "value", "reason"),
    [
        (8, 2**40, r"damaged GGUF header: it counts 1099511627776 tensors and 1 fields"),
        (16, 2**40, r"damaged GGUF header: it counts 2 tensors and 1099511627776 fields"),
        (24, 2**60, r"damaged GGUF header: it has a name of 1152921504606846976 bytes"),
        # The length of the string "flux", behind the name "general.architecture" and its type.
        (24 + 8 + 20 + 4, 2**60, r"damaged GGUF header: it has an entry of 1152921504606846976 bytes"),
        (24 + 8 + 20 + 4, 10**6, r"is cut short in its header: .* and at least \d+ more are needed"),
    ],
)
def test_size_beyond_end_of_gguf_is_refused(tmp_path: Path, position: int, value: int, reason: str) -> None:
    path = write(tmp_path / "one.gguf")
    data = bytearray(path.read_bytes())
    data[position : position + 8] = value.to_bytes(8, "little")
    path.write_bytes(data)

    with pytest.raises(WeightsCorrupt, match=f"{path} .*{reason}"):
        open_container(path)


def test_header_of_over_64_mib_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.gguf"
    with path.open("wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, 0, 2))
        for name in (b"one", b"two"):
            file.write(struct.pack("<Q3sIIQ", 3, name, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT8, 40 << 20))
            file.seek(40 << 20, 1)
        file.write(b"end")
    with pytest.raises(WeightsCorrupt, match=f"{path} has a header of more than 64 MiB"):
        open_container(path)


@pytest.mark.parametrize("count", [2**60, 10**6])
def test_array_beyond_end_of_gguf_is_refused(tmp_path: Path, count: int) -> None:
    for name, values in (("strings", ["a", "b"]), ("numbers", [1, 2])):
        path = write(tmp_path / "one.gguf", lambda writer, name=name, values=values: writer.add_array(name, values))
        data = bytearray(path.read_bytes())
        begin = data.index(name.encode()) + len(name) + 8
        assert int.from_bytes(data[begin : begin + 8], "little") == 2
        data[begin : begin + 8] = count.to_bytes(8, "little")
        path.write_bytes(data)

        with pytest.raises(WeightsCorrupt, match=f"{path} (has a damaged GGUF header|is cut short in its header)"):
            open_container(path)


def changed_tensor(path: Path, *, name: str, skip: int, size: int, value: int) -> None:
    """Overwrite a number in the description of a tensor, `skip` bytes behind its name."""
    data = bytearray(path.read_bytes())
    begin = data.index(name.encode()) + len(name) + skip
    data[begin : begin + size] = value.to_bytes(size, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("skip", "size", "value", "reason"),
    [
        (0, 4, 9, "the tensor 'other' has 9 axes"),
        (4, 8, 2**62, "is cut short: it has .* are missing at its end"),
        (20, 4, 5, "the tensor 'other' is stored as GGUF type 5, which allaprima can't read"),
        (20, 4, 12, "the tensor 'other' has rows of no whole blocks of Q4_K"),
        (24, 8, 0, "the tensor 'other' overlaps another one or is not aligned"),
        (24, 8, 33, "the tensor 'other' overlaps another one or is not aligned"),
        (24, 8, 64, "is cut short: it has .* and 32 are missing at its end"),
    ],
)
def test_damaged_description_of_tensor_is_refused(
    tmp_path: Path, skip: int, size: int, value: int, reason: str
) -> None:
    path = write(tmp_path / "one.gguf")
    changed_tensor(path, name="other", skip=skip, size=size, value=value)

    with pytest.raises(WeightsCorrupt, match=f"{path}.*{reason}"):
        open_container(path)


def test_two_tensors_or_fields_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "one.gguf", lambda writer: writer.add_uint32("general.architecturf", 1))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"general.architecturf", b"general.architecture"))
    with pytest.raises(WeightsCorrupt, match=r"it has the field 'general.architecture' twice"):
        open_container(path)
    path.write_bytes(write(path).read_bytes().replace(b"other", b"first"))
    with pytest.raises(WeightsCorrupt, match="two tensors have the same name"):
        open_container(path)


@pytest.mark.parametrize("alignment", [0, 33])
def test_alignment_that_is_no_power_of_two_is_refused(tmp_path: Path, alignment: int) -> None:
    path = write(tmp_path / "one.gguf", lambda writer: writer.add_uint32("general.alignment", alignment))
    with pytest.raises(WeightsCorrupt, match=f"general.alignment is '{alignment}', which is no power of two"):
        open_container(path)


def test_mutated_headers_are_refused_or_read_without_large_allocation(tmp_path: Path) -> None:
    valid = write(tmp_path / "one.gguf", add_fields).read_bytes()
    path = tmp_path / "mutant.gguf"
    rng = random.Random(7)
    header = len(valid) - 3 * 32 * 4 - 32
    refusals = []
    tracemalloc.start()
    for _ in range(600):
        data = bytearray(valid)
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(4, header)] = rng.randrange(256)
        path.write_bytes(data)
        try:
            container = open_gguf(path)
            for name in container.arrays:
                container.array(name)
        except WeightsCorrupt as exc:
            refusals.append(str(exc))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(refusals) > 200
    assert all(message.startswith(str(path)) and "\n" not in message for message in refusals)
    assert peak < 200e6
