"""The same code on every device: nothing is made on another than the model's, and nothing is touched at import.

Where there is no GPU the meta device stands for one: it refuses to be mixed with the CPU just as a GPU does.
"""

import subprocess
import sys

import numpy as np
import pytest
import torch

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID, Precision
from allaprima.engine.pipeline import Pipeline
from allaprima.flux import SCHNELL, SKETCH, ModelConfig, no_check
from allaprima.flux.latents import image_ids, text_ids
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.quantize import build_networks, dtype_of

REQUEST = GenerationRequest(prompt="a red apple on a beach", seed=7, model=SKETCH_ID, width=256, height=256)
EVERY_PRECISION = pytest.mark.parametrize("precision", Precision)
CONFIGS = pytest.mark.parametrize("config", [SCHNELL, SKETCH], ids=["schnell", "sketch"])


@EVERY_PRECISION
@CONFIGS
@torch.inference_mode()
def test_every_network_stays_on_the_device_of_its_weights(precision: Precision, config: ModelConfig) -> None:
    networks, device = build_networks(config, precision), torch.device("meta")
    ids = torch.zeros(1, config.t5.length, dtype=torch.long, device=device)

    txt = networks.t5(ids)
    vec = networks.clip(torch.zeros(1, config.clip.length, dtype=torch.long, device=device))
    modulations = networks.transformer.modulations(torch.ones(4, device=device), vec)
    img = torch.zeros(1, 12, config.transformer.in_channels, device=device)
    txt_ids = text_ids(config.t5.length).to(device)
    velocity = networks.transformer.velocity(img, image_ids(3, 4).to(device), txt, txt_ids, modulations.row(0))
    z = torch.zeros(1, config.autoencoder.z_channels, 6, 8, device=device, dtype=dtype_of(precision))
    picture = networks.autoencoder.decode(z, no_check)

    assert txt.shape == (1, config.t5.length, config.transformer.context_in_dim)
    assert velocity.shape == img.shape
    assert picture.shape == (1, 3, 6 * config.autoencoder.downscale, 8 * config.autoencoder.downscale)
    for tensor in (txt, vec, velocity, picture):
        assert tensor.device == device
        assert tensor.dtype == dtype_of(precision)


def test_importing_everything_starts_no_gpu_and_no_thread_of_ours() -> None:
    script = (
        "import threading, torch, allaprima.cli.serve, allaprima.cli.generate, allaprima.cli.doctor; "
        "print(torch.cuda.is_initialized(), threading.active_count())"
    )
    told = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True, timeout=120)
    assert told.stdout.split() == ["False", "1"]


@pytest.mark.parametrize(
    "precision", [Precision.BF16, Precision.INT8, Precision.INT8WO, Precision.INT4WO, Precision.FP8]
)
def test_a_gpu_paints_nearly_what_the_cpu_paints(precision: Precision) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU that torch can use")
    if precision == Precision.FP8 and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU does not multiply float8")
    files = open_model(sketch_folder())
    exact = Pipeline(files.load("cpu", Precision.FP32), "cpu").paint(REQUEST)[0].astype(float)

    found = Pipeline(files.load("cuda", precision), "cuda").paint(REQUEST)[0].astype(float)

    assert np.abs(found - exact).mean() < 4
