"""safetensors and GGUF files written byte by byte, for what the libraries refuse to write."""

import json
from pathlib import Path

import torch

from tests.weights.published import Tensors

NAMES = {
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}


def write_stored(path: Path, tensors: Tensors, declared: dict[str, tuple[str, int]]) -> None:
    """Write a safetensors file in which some tensors have another dtype, of so many bits, and bytes of 0x3f."""
    header: dict[str, object] = {}
    data = bytearray()
    for name, tensor in tensors.items():
        stored = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        dtype = NAMES[tensor.dtype]
        if name in declared:
            dtype, bits = declared[name]
            stored = (b"\x01" if dtype == "BOOL" else b"\x3f") * (tensor.numel() * bits // 8)
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(stored)],
        }
        data += stored
    write_header(path, header, bytes(data))


def write_header(path: Path, header: dict[str, object], data: bytes, length: int | None = None) -> None:
    """Write a safetensors file. length: the header is filled up with spaces to so many bytes."""
    text = json.dumps(header, separators=(",", ":")).encode()
    length = length or -(-len(text) // 8) * 8
    text = text.ljust(length)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def pad_header(path: Path, remainder: int) -> None:
    """Fill up a safetensors file's header with spaces, until its length is `remainder` modulo 65,536."""
    stored = path.read_bytes()
    size = int.from_bytes(stored[:8], "little")
    header, data = stored[8 : 8 + size].rstrip(), stored[8 + size :]
    length = remainder
    while length < len(header):
        length += 65_536
    path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + data)
