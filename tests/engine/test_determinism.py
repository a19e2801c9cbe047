"""The determinism contract, bit for bit: the images of a request depend only on the request and the model.

Whole PNG files are compared, so the text in them must be equal as well as every pixel.
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
from allaprima.domain.models import SKETCH_ID, Precision
from allaprima.domain.progress import StepCallback
from allaprima.engine.generator import Generator
from allaprima.engine.local import LocalEngine
from allaprima.engine.pipeline import Pipeline
from allaprima.engine.safety.checker import SafetyChecker
from allaprima.flux import CancelCheck
from allaprima.kernels import library
from allaprima.kernels.library import IsaLevel
from allaprima.settings import DEFAULT_SAFETY_THRESHOLD
from allaprima.weights.networks import Model
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.roster import open_roster

pytestmark = pytest.mark.timeout(600)

KERNELS = pytest.mark.skipif(
    library.level() < IsaLevel.AVX512, reason="the bits of torch's own operations depend on the number of threads"
)
#: Longest wait for an image, in seconds.
LIMIT_S = 300

REQUESTS = {
    "square": GenerationRequest(
        prompt="a red apple, blue background", seed=11, model=SKETCH_ID, width=256, height=256, steps=2
    ),
    "wide": GenerationRequest(
        prompt="a t-rex on a beach", seed=2**40 + 5, model=SKETCH_ID, width=384, height=128, steps=2
    ),
}
OTHERS = (
    GenerationRequest(prompt="a rocket at night", seed=0, model=SKETCH_ID, width=64, height=320, steps=1, count=2),
    GenerationRequest(prompt="a palm tree in the desert", seed=11, model=SKETCH_ID, width=256, height=256, steps=3),
    GenerationRequest(prompt="a red apple, blue background", seed=12, model=SKETCH_ID, width=288, height=256, steps=1),
    GenerationRequest(prompt="a pizza", seed=2**63 - 1, model=SKETCH_ID, width=64, height=64, steps=2),
)


def start_engine(model: Model, safety: SafetyChecker, max_concurrency: int = 1) -> LocalEngine:
    """Return a started engine with a new pipeline of the model."""

    def load(_check: CancelCheck) -> dict[str, Generator]:
        return {model.id: Generator(Pipeline(model, "cpu"), safety, DEFAULT_SAFETY_THRESHOLD)}

    engine = LocalEngine(open_roster(()), load, max_concurrency)
    engine.start()
    return engine


def generate(engine: LocalEngine, *requests: GenerationRequest) -> list[list[bytes]]:
    """Submit all requests at once; return the files of each."""
    futures = [engine.enqueue(str(uuid7()), request, StepCallback()) for request in requests]
    return [[image.data for image in future.result(LIMIT_S).images] for future in futures]


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def engine(sketch: Model, safety: SafetyChecker) -> Iterator[LocalEngine]:
    opened = start_engine(sketch, safety)
    yield opened
    opened.close()


@pytest.fixture(params=REQUESTS)
def request_(request: pytest.FixtureRequest) -> GenerationRequest:
    return REQUESTS[request.param]


@pytest.fixture
def alone(request_: GenerationRequest, engine: LocalEngine, generated_alone: dict[GenerationRequest, bytes]) -> bytes:
    """The image of the request, generated while no other request runs."""
    if request_ not in generated_alone:
        [[generated_alone[request_]]] = generate(engine, request_)
    return generated_alone[request_]


@pytest.fixture(scope="module")
def generated_alone() -> dict[GenerationRequest, bytes]:
    return {}


def test_repeated_request_gives_same_bytes(engine: LocalEngine, request_: GenerationRequest, alone: bytes) -> None:
    assert generate(engine, request_) == [[alone]]


def test_image_of_batch_equals_image_of_its_own_seed(
    engine: LocalEngine, request_: GenerationRequest, alone: bytes
) -> None:
    [images] = generate(engine, request_.changed(seed=request_.seed - 2, count=4))

    assert images[2] == alone
    assert len(set(images)) == 4


@pytest.mark.parametrize("count", [2, 3])
def test_batch_size_does_not_change_first_image(
    engine: LocalEngine, request_: GenerationRequest, alone: bytes, count: int
) -> None:
    [images] = generate(engine, request_.changed(count=count))

    assert images[0] == alone


def test_other_requests_do_not_change_image(engine: LocalEngine, request_: GenerationRequest, alone: bytes) -> None:
    found = generate(engine, *OTHERS[:2], request_, *OTHERS[2:], request_)

    assert found[2] == found[-1] == [alone]


def test_earlier_sizes_do_not_change_image(engine: LocalEngine, request_: GenerationRequest, alone: bytes) -> None:
    for width, height in ((64, 64), (512, 64), (64, 512), (256, 512)):
        generate(engine, request_.changed(width=width, height=height, steps=1))

    assert generate(engine, request_) == [[alone]]


def test_safety_checker_does_not_change_image(engine: LocalEngine, request_: GenerationRequest) -> None:
    assert generate(engine, request_.changed(check_safety=False)) == generate(engine, request_)


@KERNELS
def test_concurrent_requests_do_not_change_image_or_score(
    engine: LocalEngine, request_: GenerationRequest, sketch: Model, safety: SafetyChecker
) -> None:
    alone = engine.enqueue("alone", request_, StepCallback()).result(LIMIT_S).images
    concurrent = start_engine(sketch, safety, max_concurrency=3)
    requests = (request_, *OTHERS, request_, request_)
    futures = [concurrent.enqueue(str(uuid7()), request, StepCallback()) for request in requests]
    found = [future.result(LIMIT_S).images for future in futures]
    concurrent.close()

    assert [found[0], found[-2], found[-1]] == [alone] * 3
    assert alone[0].nsfw_score is not None


@KERNELS
def test_thread_count_does_not_change_image(
    request_: GenerationRequest, alone: bytes, sketch: Model, safety: SafetyChecker
) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            fresh = start_engine(sketch, safety)
            try:
                assert generate(fresh, request_) == [[alone]]
            finally:
                fresh.close()
    finally:
        torch.set_num_threads(before)


@KERNELS
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8])
def test_pixels_of_each_precision_do_not_depend_on_threads(precision: Precision) -> None:
    model = open_model(sketch_folder()).load("cpu", precision)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(Pipeline(model, "cpu").generate(REQUESTS["wide"])[0])
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


def test_reloaded_model_gives_same_bytes(request_: GenerationRequest, alone: bytes) -> None:
    fresh = start_engine(open_model(sketch_folder()).load(), SafetyChecker.load())
    try:
        assert generate(fresh, request_) == [[alone]]
    finally:
        fresh.close()


#: Reads a JSON object of requests by output path, generates each one and writes its image to the path.
PROGRAM = """
import json, sys
from pathlib import Path
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.progress import StepCallback
from allaprima.engine.build import build_engine
from allaprima.settings import EngineSettings

engine = build_engine(EngineSettings())
engine.start()
for path, fields in json.loads(sys.argv[1]).items():
    result = engine.enqueue(path, GenerationRequest(**fields), StepCallback()).result()
    Path(path).write_bytes(result.images[0].data)
engine.close()
"""


@pytest.fixture(scope="module")
def from_another_process(tmp_path_factory: pytest.TempPathFactory) -> dict[GenerationRequest, Path]:
    """The file that another process wrote for each request."""
    folder = tmp_path_factory.mktemp("process")
    files = {request: folder / f"{name}.png" for name, request in REQUESTS.items()}
    fields = {str(path): request.model_dump() for request, path in files.items()}
    subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(fields)], check=True, timeout=LIMIT_S)
    return files


def test_another_process_gives_same_bytes(
    request_: GenerationRequest, alone: bytes, from_another_process: dict[GenerationRequest, Path]
) -> None:
    assert from_another_process[request_].read_bytes() == alone


def test_another_seed_gives_different_pixels(engine: LocalEngine, request_: GenerationRequest, alone: bytes) -> None:
    [[other]] = generate(engine, request_.changed(seed=request_.seed + 1))

    assert not np.array_equal(pixels(other), pixels(alone))
