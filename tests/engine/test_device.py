"""Device checks, the concurrency policy, and networks that stay on the device of their weights.

Without a GPU the meta device takes its place: like a GPU it refuses to be mixed with the CPU.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID, Precision
from allaprima.engine.device import MAX_CONCURRENCY, max_concurrency, prepare_device
from allaprima.engine.pipeline import Pipeline
from allaprima.errors import SettingsError
from allaprima.flux import SCHNELL, SKETCH, ModelConfig, never_cancelled
from allaprima.flux.latents import image_ids, text_ids
from allaprima.kernels import library
from allaprima.settings import EngineSettings
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.quantize import build_networks, dtype_of

REQUEST = GenerationRequest(prompt="a red apple on a beach", seed=7, model=SKETCH_ID, width=256, height=256)
EVERY_PRECISION = pytest.mark.parametrize("precision", Precision)
#: The widths of FLUX.1 [schnell], with one block of each kind.
SHALLOW_SCHNELL = replace(
    SCHNELL,
    transformer=replace(SCHNELL.transformer, depth=1, depth_single_blocks=1),
    t5=replace(SCHNELL.t5, num_layers=1),
    clip=replace(SCHNELL.clip, num_layers=1),
)
CONFIGS = pytest.mark.parametrize("config", [SHALLOW_SCHNELL, SKETCH], ids=["schnell", "sketch"])


@EVERY_PRECISION
@CONFIGS
@torch.inference_mode()
def test_networks_compute_on_device_of_their_weights(precision: Precision, config: ModelConfig) -> None:
    networks, device = build_networks(config, precision), torch.device("meta")
    ids = torch.zeros(1, config.t5.length, dtype=torch.long, device=device)

    txt = networks.t5(ids)
    vec = networks.clip(torch.zeros(1, config.clip.length, dtype=torch.long, device=device))
    modulations = networks.transformer.modulations(torch.ones(4, device=device), vec)
    img = torch.zeros(1, 12, config.transformer.in_channels, device=device)
    txt_ids = text_ids(config.t5.length).to(device)
    velocity = networks.transformer.velocity(img, image_ids(3, 4).to(device), txt, txt_ids, modulations.row(0))
    z = torch.zeros(1, config.autoencoder.z_channels, 6, 8, device=device, dtype=dtype_of(precision))
    image = networks.autoencoder.decode(z, never_cancelled)

    assert txt.shape == (1, config.t5.length, config.transformer.context_in_dim)
    assert velocity.shape == img.shape
    assert image.shape == (1, 3, 6 * config.autoencoder.downscale, 8 * config.autoencoder.downscale)
    for tensor in (txt, vec, velocity, image):
        assert tensor.device == device
        assert tensor.dtype == dtype_of(precision)


def test_engine_import_starts_no_gpu_or_thread() -> None:
    script = (
        "import threading, torch, allaprima.engine.build; print(torch.cuda.is_initialized(), threading.active_count())"
    )
    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "1"]


@pytest.mark.parametrize(
    "precision", [Precision.BF16, Precision.INT8, Precision.INT8WO, Precision.INT4WO, Precision.FP8]
)
def test_gpu_image_is_close_to_cpu_image(precision: Precision) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    if precision == Precision.FP8 and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no float8 matrix products")
    files = open_model(sketch_folder())
    exact = Pipeline(files.load("cpu", Precision.FP32), "cpu").generate(REQUEST)[0].astype(float)

    found = Pipeline(files.load("cuda", precision), "cuda").generate(REQUEST)[0].astype(float)

    assert np.abs(found - exact).mean() < 4


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore torch's number of threads after the test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_missing_gpu_is_refused_by_setting() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")

    with pytest.raises(SettingsError, match=r"engine\.device = 'cuda': this machine has no such device"):
        prepare_device(EngineSettings(device="cuda"))


def test_automatic_device_is_a_gpu_if_torch_finds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, device in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=found: found)
        assert prepare_device(EngineSettings()).device == device


def test_device_of_settings_is_kept() -> None:
    assert prepare_device(EngineSettings(device="cpu")).device == "cpu"


def test_fp8_on_cpu_is_refused_by_setting() -> None:
    with pytest.raises(SettingsError, match=r"engine\.precision = 'fp8' needs a GPU"):
        prepare_device(EngineSettings(device="cpu", precision="fp8"))


@pytest.mark.usefixtures("threads")
def test_threads_setting_is_applied() -> None:
    prepare_device(EngineSettings(threads=3))

    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
@pytest.mark.skipif(library.level() < library.IsaLevel.AVX512, reason="needs the kernels")
def test_small_models_run_one_request_per_core() -> None:
    small = [SimpleNamespace(config=SKETCH)]

    found = []
    for threads in (1, 2, MAX_CONCURRENCY + 1):
        torch.set_num_threads(threads)
        found.append(max_concurrency(EngineSettings(device="cpu"), small))

    assert found == [1, 2, MAX_CONCURRENCY]


@pytest.mark.parametrize(
    ("settings", "configs"),
    [
        (EngineSettings(device="cpu"), [SKETCH, SCHNELL]),
        (EngineSettings(device="cpu", precision="int8"), [SKETCH]),
        (EngineSettings(device="cuda"), [SKETCH]),
    ],
    ids=["a large model", "another precision", "a GPU"],
)
@pytest.mark.usefixtures("threads")
def test_other_configurations_run_one_request_at_a_time(settings: EngineSettings, configs: list[ModelConfig]) -> None:
    torch.set_num_threads(4)

    assert max_concurrency(settings, [SimpleNamespace(config=config) for config in configs]) == 1
