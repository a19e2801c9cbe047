"""Precisions: what is packed, what it takes, which one is chosen, and how near its pictures are."""

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
from allaprima.weights import quantize as precisions
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.quantize import LINEARS, build_networks, choose_precision, footprint, needed_bytes

GIB = 2**30
REQUEST = GenerationRequest(prompt="a red apple on a beach", seed=7, model="allaprima/sketch", width=256, height=256)


def test_the_settings_know_every_precision() -> None:
    (names, _none) = get_args(get_type_hints(EngineSettings)["precision"])
    assert set(get_args(names)) == {precision.value for precision in Precision}


@pytest.mark.parametrize("precision", LINEARS)
def test_the_blocks_linears_are_packed_and_nothing_else_is(precision: Precision) -> None:
    networks = build_networks(SCHNELL, precision)
    packed = {name for name, module in networks.named_modules() if isinstance(module, QuantizedLinear)}
    plain = {name for name, module in networks.named_modules() if isinstance(module, nn.Linear)}

    in_blocks = 19 * 2 * (1 + 2 + 2) + 38 * 3
    assert len(packed) == in_blocks + 24 * 7
    assert {name.split(".")[0] for name in packed} == {"transformer", "t5"}
    for kept in ("img_in", "txt_in", "time_in.in_layer", "vector_in.out_layer", "final_layer.linear"):
        assert f"transformer.{kept}" in plain
    assert not any(name.startswith(("transformer.double", "transformer.single", "t5.encoder")) for name in plain)


def test_schnells_footprint_is_what_its_numbers_come_to() -> None:
    whole = footprint(SCHNELL, Precision.BF16).whole
    assert whole == 2 * sum(tensor.numel() for tensor in build_networks(SCHNELL, Precision.BF16).state_dict().values())
    int8 = footprint(SCHNELL, Precision.INT8)
    assert int8.whole == pytest.approx(17.3e9, rel=0.01)
    assert int8.text == pytest.approx(4.9e9, rel=0.01)
    assert int8.modulation == pytest.approx(3.23e9, rel=0.01)
    assert footprint(SCHNELL, Precision.INT4WO).whole == pytest.approx(10.0e9, rel=0.02)


@pytest.mark.parametrize(
    ("free_gib", "asked", "chosen"),
    [(40, None, "bf16"), (24, None, "int8"), (20, None, "int8"), (24, "int4wo", "int4wo"), (80, "fp32", "fp32")],
)
def test_the_widest_preferred_precision_that_fits_is_chosen(
    free_gib: int, asked: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "available_bytes", lambda _: free_gib * GIB)
    assert choose_precision("it", SCHNELL, Precision(asked) if asked else None, "cuda") == chosen


def test_a_cpu_without_kernels_for_bfloat16_is_given_int8_however_much_memory_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precisions, "available_bytes", lambda _: 200 * GIB)
    with library.limited(library.IsaLevel.AVX2):
        assert choose_precision("it", SCHNELL, None, "cpu") == Precision.INT8


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4WO])
def test_a_cpu_without_kernels_for_bfloat16_computes_in_float32_beside_packed_weights(precision: Precision) -> None:
    with library.limited(library.IsaLevel.AVX2):
        networks = open_model(sketch_folder()).load("cpu", precision).networks
    for module in networks.modules():
        if not isinstance(module, QuantizedLinear):
            assert all(parameter.dtype == torch.float32 for parameter in module.parameters(recurse=False))


@pytest.mark.parametrize(
    ("free_gib", "asked", "words"),
    [
        (9, None, r"it needs 10\.\d GiB of memory in int8, and 9\.0 GiB are free on cpu; ask for int4wo \(\d"),
        (24, "bf16", r"needs 3\d\.\d GiB of memory in bf16.*ask for int8 \(.*\) or int8wo \(.*\) or int4wo"),
        (4, None, r"no other precision fits"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(
    free_gib: int, asked: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precisions, "available_bytes", lambda _: free_gib * GIB)
    with pytest.raises(WeightsTooLarge, match=words):
        choose_precision("it", SCHNELL, Precision(asked) if asked else None, "cpu")


def test_what_is_free_need_not_be_known() -> None:
    assert needed_bytes(SKETCH, Precision.INT8, "cuda") > needed_bytes(SKETCH, Precision.INT8, "cpu")


@pytest.mark.parametrize(
    ("precision", "least_db"),
    [(Precision.BF16, 35), (Precision.INT8, 25), (Precision.INT8WO, 32), (Precision.FP8, 20), (Precision.INT4WO, 15)],
)
def test_the_built_in_model_paints_nearly_the_same_in_every_precision(precision: Precision, least_db: float) -> None:
    files = open_model(sketch_folder())
    exact = Pipeline(files.load("cpu", Precision.FP32), "cpu").generate(REQUEST)[0].astype(float)
    found = Pipeline(files.load("cpu", precision), "cpu").generate(REQUEST)[0].astype(float)

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
