"""The determinism contract, bit for bit: what a request paints depends on the request and the model alone.

Whole PNG files are compared, so the text inside them has to agree as well as every pixel.
"""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from uuid_utils import uuid7

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID, ModelInfo, Precision
from allaprima.domain.progress import StepCallback
from allaprima.engine.generator import Generator
from allaprima.engine.local import LocalEngine
from allaprima.engine.pipeline import Pipeline
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.flux import CancelCheck
from allaprima.kernels import library
from allaprima.kernels.library import IsaLevel
from allaprima.settings import DEFAULT_SAFETY_THRESHOLD
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder

pytestmark = pytest.mark.timeout(600)

KERNELS = pytest.mark.skipif(
    library.level() < IsaLevel.AVX512, reason="torch's own operations promise nothing across numbers of threads"
)
#: Longest wait for a picture, in seconds.
LIMIT_S = 300

REQUESTS = {
    "square": GenerationRequest(
        prompt="a red apple, blue background", seed=11, model=SKETCH_ID, width=256, height=256, steps=2
    ),
    "wide": GenerationRequest(
        prompt="a t-rex on a beach", seed=2**40 + 5, model=SKETCH_ID, width=384, height=128, steps=2
    ),
}
STRANGERS = (
    GenerationRequest(prompt="a rocket at night", seed=0, model=SKETCH_ID, width=64, height=320, steps=1, count=2),
    GenerationRequest(prompt="a palm tree in the desert", seed=11, model=SKETCH_ID, width=256, height=256, steps=3),
    GenerationRequest(prompt="a red apple, blue background", seed=12, model=SKETCH_ID, width=288, height=256, steps=1),
    GenerationRequest(prompt="a pizza", seed=2**63 - 1, model=SKETCH_ID, width=64, height=64, steps=2),
)


def new_engine(abreast: int = 1) -> LocalEngine:
    """Return a started engine that reads the model from the disk."""

    def load(_check: CancelCheck) -> dict[str, Generator]:
        model = open_model(sketch_folder()).load()
        return {model.id: Generator(Pipeline(model, "cpu"), SafetyChecker.load(), DEFAULT_SAFETY_THRESHOLD)}

    engine = LocalEngine((ModelInfo(SKETCH_ID, "", "sketch", ""),), load, {}, abreast)
    engine.start()
    return engine


def paint(engine: LocalEngine, *requests: GenerationRequest) -> list[list[bytes]]:
    """Submit all requests at once; return the files of each."""
    futures = [engine.submit(str(uuid7()), request, StepCallback()) for request in requests]
    return [[image.data for image in future.result(LIMIT_S).images] for future in futures]


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    opened = new_engine()
    yield opened
    opened.close()


@pytest.fixture(params=REQUESTS)
def request_(request: pytest.FixtureRequest) -> GenerationRequest:
    return REQUESTS[request.param]


@pytest.fixture
def alone(request_: GenerationRequest, engine: LocalEngine, painted: dict[GenerationRequest, bytes]) -> bytes:
    """The picture painted with nothing concat_into it."""
    if request_ not in painted:
        [[painted[request_]]] = paint(engine, request_)
    return painted[request_]


@pytest.fixture(scope="module")
def painted() -> dict[GenerationRequest, bytes]:
    return {}


def test_a_request_paints_the_same_bytes_again(engine: LocalEngine, request_: GenerationRequest, alone: bytes) -> None:
    assert paint(engine, request_) == [[alone]]


def test_image_3_of_4_is_the_image_of_its_own_seed(
    engine: LocalEngine, request_: GenerationRequest, alone: bytes
) -> None:
    [images] = paint(engine, request_.changed(seed=request_.seed - 2, count=4))

    assert images[2] == alone
    assert len(set(images)) == 4


@pytest.mark.parametrize("count", [2, 3])
def test_the_number_of_images_does_not_change_the_first(
    engine: LocalEngine, request_: GenerationRequest, alone: bytes, count: int
) -> None:
    [images] = paint(engine, request_.changed(count=count))

    assert images[0] == alone


def test_strangers_before_and_after_do_not_change_a_bit(
    engine: LocalEngine, request_: GenerationRequest, alone: bytes
) -> None:
    painted = paint(engine, *STRANGERS[:2], request_, *STRANGERS[2:], request_)

    assert painted[2] == painted[-1] == [alone]


def test_other_sizes_painted_before_do_not_change_a_bit(
    engine: LocalEngine, request_: GenerationRequest, alone: bytes
) -> None:
    for width, height in ((64, 64), (512, 64), (64, 512), (256, 512)):
        paint(engine, request_.changed(width=width, height=height, steps=1))

    assert paint(engine, request_) == [[alone]]


def test_looking_at_the_picture_does_not_change_it(engine: LocalEngine, request_: GenerationRequest) -> None:
    assert paint(engine, request_.changed(check_safety=False)) == paint(engine, request_)


@KERNELS
def test_strangers_painted_abreast_do_not_change_a_bit_nor_a_score(
    engine: LocalEngine, request_: GenerationRequest
) -> None:
    alone = engine.submit("alone", request_, StepCallback()).result(LIMIT_S).images
    abreast = new_engine(abreast=3)
    requests = (request_, *STRANGERS, request_, request_)
    futures = [abreast.submit(str(uuid7()), request, StepCallback()) for request in requests]
    painted = [future.result(LIMIT_S).images for future in futures]
    abreast.close()

    assert [painted[0], painted[-2], painted[-1]] == [alone] * 3
    assert alone[0].nsfw_score is not None


@KERNELS
def test_the_number_of_threads_does_not_change_a_bit(
    engine: LocalEngine, request_: GenerationRequest, alone: bytes
) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            fresh = new_engine()
            try:
                assert paint(fresh, request_) == [[alone]]
            finally:
                fresh.close()
    finally:
        torch.set_num_threads(before)


@KERNELS
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8])
def test_a_picture_has_the_same_pixels_with_one_thread_and_with_two(precision: Precision) -> None:
    model = open_model(sketch_folder()).load("cpu", precision)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(Pipeline(model, "cpu").paint(REQUESTS["wide"])[0])
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


def test_an_engine_that_read_the_model_anew_paints_the_same_bytes(request_: GenerationRequest, alone: bytes) -> None:
    fresh = new_engine()
    try:
        assert paint(fresh, request_) == [[alone]]
    finally:
        fresh.close()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[GenerationRequest, Path]:
    """The file that another process painted for each request."""
    folder = tmp_path_factory.mktemp("elsewhere")
    files = {request: folder / f"{name}.png" for name, request in REQUESTS.items()}
    commands = [
        [
            *("generate", request.prompt, "-o", str(file), f"--size={request.width}x{request.height}"),
            *(f"--steps={request.steps}", f"--seed={request.seed}"),
        ]
        for request, file in files.items()
    ]
    program = (
        "import json, sys; from allaprima.cli import app\n"
        "for command in json.loads(sys.argv[1]): app(command, standalone_mode=False)"
    )
    subprocess.run([sys.executable, "-c", program, json.dumps(commands)], check=True, timeout=LIMIT_S)
    return files


def test_another_process_paints_the_same_bytes(
    request_: GenerationRequest, alone: bytes, elsewhere: dict[GenerationRequest, Path]
) -> None:
    assert elsewhere[request_].read_bytes() == alone


def test_another_seed_paints_other_pixels(engine: LocalEngine, request_: GenerationRequest, alone: bytes) -> None:
    [[other]] = paint(engine, request_.changed(seed=request_.seed + 1))

    assert not np.array_equal(pixels(other), pixels(alone))
