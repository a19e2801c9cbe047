"""Precisions: quantized layers, memory footprint, choice by free memory, and image quality."""

import math
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import Precision
from allaprima.engine.pipeline import Pipeline
from allaprima.errors import WeightsTooLarge
from allaprima.flux import SCHNELL, SKETCH
from allaprima.kernels import QuantizedLinear, library
from allaprima.settings import EngineSettings
from allaprima.weights import quantize
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.quantize import LINEARS, build_networks, choose_precision, footprint, needed_bytes
from tests.weights.published import generate

GIB = 2**30
REQUEST = GenerationRequest(prompt="a red apple on a beach", seed=7, model="allaprima/sketch", width=256, height=256)


def test_settings_accept_every_precision() -> None:
    (names, _none) = get_args(get_type_hints(EngineSettings)["precision"])
    assert set(get_args(names)) == {precision.value for precision in Precision}


@pytest.mark.parametrize("precision", LINEARS)
def test_only_linears_of_blocks_are_quantized(precision: Precision) -> None:
    networks = build_networks(SCHNELL, precision)
    packed = {name for name, module in networks.named_modules() if isinstance(module, QuantizedLinear)}
    plain = {name for name, module in networks.named_modules() if isinstance(module, nn.Linear)}

    in_blocks = 19 * 2 * (1 + 2 + 2) + 38 * 3
    assert len(packed) == in_blocks + 24 * 7
    assert {name.split(".")[0] for name in packed} == {"transformer", "t5"}
    for kept in ("img_in", "txt_in", "time_in.in_layer", "vector_in.out_layer", "final_layer.linear"):
        assert f"transformer.{kept}" in plain
    assert not any(name.startswith(("transformer.double", "transformer.single", "t5.encoder")) for name in plain)


def test_footprint_of_schnell_equals_tensor_bytes() -> None:
    whole = footprint(SCHNELL, Precision.BF16).whole
    assert whole == 2 * sum(tensor.numel() for tensor in build_networks(SCHNELL, Precision.BF16).state_dict().values())
    int8 = footprint(SCHNELL, Precision.INT8)
    assert int8.whole == pytest.approx(17.3e9, rel=0.01)
    assert int8.text == pytest.approx(4.9e9, rel=0.01)
    assert int8.modulation == pytest.approx(3.23e9, rel=0.01)
    assert footprint(SCHNELL, Precision.INT4WO).whole == pytest.approx(10.0e9, rel=0.02)


@pytest.mark.parametrize(
    ("free_gib", "requested", "chosen"),
    [(40, None, "bf16"), (24, None, "int8"), (20, None, "int8"), (24, "int4wo", "int4wo"), (80, "fp32", "fp32")],
)
def test_preferred_precision_that_fits_is_chosen(
    free_gib: int, requested: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "available_bytes", lambda _: free_gib * GIB)
    assert choose_precision("it", SCHNELL, Precision(requested) if requested else None, "cuda") == chosen


def test_cpu_without_bfloat16_kernels_gets_int8(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantize, "available_bytes", lambda _: 200 * GIB)
    with library.limited(library.IsaLevel.AVX2):
        assert choose_precision("it", SCHNELL, None, "cpu") == Precision.INT8


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4WO])
def test_cpu_without_bfloat16_kernels_keeps_other_weights_in_float32(precision: Precision) -> None:
    with library.limited(library.IsaLevel.AVX2):
        networks = open_model(sketch_folder()).load("cpu", precision).networks
    for module in networks.modules():
        if not isinstance(module, QuantizedLinear):
            assert all(parameter.dtype == torch.float32 for parameter in module.parameters(recurse=False))


@pytest.mark.parametrize(
    ("free_gib", "requested", "message"),
    [
        (9, None, r"it needs 10\.\d GiB of memory in int8, and 9\.0 GiB are free on cpu; ask for int4wo \(\d"),
        (24, "bf16", r"needs 3\d\.\d GiB of memory in bf16.*ask for int8 \(.*\) or int8wo \(.*\) or int4wo"),
        (4, None, r"no other precision fits"),
    ],
)
def test_refused_precision_is_reported_with_those_that_fit(
    free_gib: int, requested: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "available_bytes", lambda _: free_gib * GIB)
    with pytest.raises(WeightsTooLarge, match=message):
        choose_precision("it", SCHNELL, Precision(requested) if requested else None, "cpu")


def test_cpu_needs_less_memory_than_gpu() -> None:
    assert needed_bytes(SKETCH, Precision.INT8, "cuda") > needed_bytes(SKETCH, Precision.INT8, "cpu")


@pytest.mark.parametrize(
    ("precision", "least_db"),
    [(Precision.BF16, 35), (Precision.INT8, 25), (Precision.INT8WO, 32), (Precision.FP8, 20), (Precision.INT4WO, 15)],
)
def test_images_are_close_to_float32_in_every_precision(precision: Precision, least_db: float) -> None:
    files = open_model(sketch_folder())
    exact = generate(files.load("cpu", Precision.FP32), REQUEST).astype(float)
    found = generate(files.load("cpu", precision), REQUEST).astype(float)

    error = float(np.square(exact - found).mean())

    assert error > 0
    assert 10 * math.log10(255**2 / error) > least_db


def test_latents_and_steps_are_float32_in_every_precision() -> None:
    for precision in Precision:
        pipeline = Pipeline(open_model(sketch_folder()).load("cpu", precision), "cpu")
        with torch.inference_mode():
            state = pipeline.init_latents(REQUEST)
            for progress in pipeline.denoise(state, pipeline.encode(REQUEST.prompt, lambda: None), 2, lambda: None):
                assert all(image.dtype == torch.float32 for image in progress.latents)
