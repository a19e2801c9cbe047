"""GGUF files: dequantized blocks equal those of the `gguf` library, and sizes beyond the file are refused."""

import inspect
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from allaprima.errors import WeightsCorrupt
from allaprima.weights.formats.container import open_container
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


class RecordingReader(gguf.GGUFReader):
    """The library's reader, with a record of the offsets that it reads at."""

    def _get(self, offset: int, *args: object, **options: object) -> object:
        self.__dict__.setdefault("offsets", []).append(offset)
        return super()._get(offset, *args, **options)


def test_gguf_reader_reads_only_through_get_method(tmp_path: Path) -> None:
    """Fails when a release of `gguf` renames the method, changes its parameters or reads by other means."""
    write_gguf(tmp_path / "one.gguf", {"vector": torch.ones(8)})

    reader = RecordingReader(tmp_path / "one.gguf")

    parameters = inspect.signature(gguf.GGUFReader._get).parameters
    assert list(parameters) == ["self", "offset", "dtype", "count", "override_order"]
    assert reader.offsets[0] == 0
    assert reader.offsets[-1] == reader.tensors[0].data_offset


def test_size_beyond_end_of_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.gguf"
    write_gguf(path, {"vector": torch.ones(8)})
    data = bytearray(path.read_bytes())
    # The number of tensors follows the magic and the version.
    data[8:16] = (2**40).to_bytes(8, "little")
    path.write_bytes(data)

    with pytest.raises(WeightsCorrupt, match=r"one\.gguf is not a readable GGUF file"):
        open_container(path)
