"""The local engine: order, concurrency, cancelling, closing and failing, with a scripted generator.

One test cancels a request of the built-in model.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from concurrent.futures import wait as wait_for
from dataclasses import replace
from types import SimpleNamespace

import pytest

from allaprima.domain.generation import GeneratedImage, GenerationRequest, GenerationResult, Timings
from allaprima.domain.models import SKETCH_ID, Precision
from allaprima.domain.progress import Progress, StepCallback, StepDone
from allaprima.engine.generator import Generator
from allaprima.engine.local import LoadGenerators, LocalEngine
from allaprima.errors import Cancelled, Draining, GenerationFailed, WeightsCorrupt
from allaprima.flux import CancelCheck
from allaprima.kernels import library
from allaprima.weights.roster import open_roster

#: Longest wait for an event, in seconds.
LIMIT_S = 120

REQUEST = GenerationRequest(prompt="an apple", seed=1, model=SKETCH_ID, width=64, height=64, steps=3)
CRASH = REQUEST.changed(prompt="crash")
REFUSE = REQUEST.changed(prompt="refuse")


class ScriptedGenerator(Generator):
    """Returns the prompt's bytes as the image; "crash" raises an unexpected error, "refuse" an expected one."""

    def __init__(self) -> None:
        self.model = SimpleNamespace(id=SKETCH_ID, revision="r1", precision=Precision.FP32)
        #: The prompts that were started, in order.
        self.prompts: list[str] = []

    def generate(self, request: GenerationRequest, check: CancelCheck, progress: Progress) -> GenerationResult:
        self.prompts.append(request.prompt)
        if request.prompt == "crash":
            raise ZeroDivisionError("a bug")
        if request.prompt == "refuse":
            raise GenerationFailed("no")
        for step in range(1, request.steps + 1):
            check()
            progress.step(StepDone(step, request.steps))
        check()
        image = GeneratedImage(request.prompt.encode(), request.seed, None, is_flagged=False)
        timings = Timings(text=0.0, steps=(0.0,) * request.steps, decode=0.0, safety=0.0, encode=0.0)
        return GenerationResult(SKETCH_ID, "r1", Precision.FP32, (image,), timings, ())


class Gate(StepCallback):
    """Blocks the engine's thread at each step until `opened` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.seen: list[StepDone] = []

    def step(self, done: StepDone) -> None:
        self.seen.append(done)
        self.reached.set()
        assert self.opened.wait(LIMIT_S)


@pytest.fixture
def scripted() -> ScriptedGenerator:
    return ScriptedGenerator()


@pytest.fixture
def engine(scripted: ScriptedGenerator) -> Iterator[LocalEngine]:
    yield from running(lambda _check: {SKETCH_ID: scripted})


@pytest.fixture
def sketch_engine(generator: Generator) -> Iterator[LocalEngine]:
    yield from running(lambda _check: {SKETCH_ID: generator})


def running(load: LoadGenerators) -> Iterator[LocalEngine]:
    opened = LocalEngine(open_roster(()), load)
    opened.start()
    yield opened
    opened.close()


def test_engine_is_ready_after_models_are_loaded(scripted: ScriptedGenerator) -> None:
    may_load = threading.Event()

    def load(_check: CancelCheck) -> dict[str, Generator]:
        assert may_load.wait(LIMIT_S)
        return {SKETCH_ID: scripted}

    engine = LocalEngine(open_roster(()), load)
    engine.start()
    future = engine.enqueue("early", REQUEST, StepCallback())
    assert not engine.is_ready
    [info] = engine.models
    assert (info.id, info.revision) == (SKETCH_ID, "")

    may_load.set()
    engine.ready.result(LIMIT_S)

    assert engine.is_ready
    assert engine.models == (replace(info, revision="r1", precision=Precision.FP32, kernels=library.signature()),)
    assert future.result(LIMIT_S).images[0].data == b"an apple"
    engine.close()


@pytest.mark.parametrize("error", [WeightsCorrupt("bad file"), MemoryError()], ids=["expected", "unexpected"])
def test_loading_error_fails_ready_future(error: Exception) -> None:
    def load(_check: CancelCheck) -> dict[str, Generator]:
        raise error

    engine = LocalEngine(open_roster(()), load)
    engine.start()
    waiting = engine.enqueue("waiting", REQUEST, StepCallback())

    assert engine.ready.exception(LIMIT_S) is error
    assert not engine.is_ready
    engine.close()

    assert isinstance(waiting.exception(LIMIT_S), Draining)


def test_requests_run_in_submission_order(engine: LocalEngine, scripted: ScriptedGenerator) -> None:
    prompts = [f"prompt {number}" for number in range(8)]

    futures = [engine.enqueue(prompt, REQUEST.changed(prompt=prompt), StepCallback()) for prompt in prompts]

    assert [future.result(LIMIT_S).images[0].data.decode() for future in futures] == prompts
    assert scripted.prompts == prompts


def test_steps_are_reported_in_order(engine: LocalEngine) -> None:
    seen: list[StepDone] = []

    engine.enqueue("steps", REQUEST, StepCallback(seen.append)).result(LIMIT_S)

    assert seen == [StepDone(1, 3), StepDone(2, 3), StepDone(3, 3)]


def test_requests_run_up_to_max_concurrency(scripted: ScriptedGenerator) -> None:
    engine = LocalEngine(open_roster(()), lambda _check: {SKETCH_ID: scripted}, max_concurrency=2)
    engine.start()
    gates = [Gate() for _ in range(3)]
    requests = [REQUEST.changed(prompt=f"prompt {number}") for number in range(3)]
    futures = [engine.enqueue(str(number), requests[number], gate) for number, gate in enumerate(gates)]
    assert all(gate.reached.wait(LIMIT_S) for gate in gates[:2])
    assert not gates[2].reached.is_set()

    gates[1].opened.set()
    assert gates[2].reached.wait(LIMIT_S)
    for gate in gates:
        gate.opened.set()
    found = [future.result(LIMIT_S).images[0].data for future in futures]
    assert found == [request.prompt.encode() for request in requests]
    engine.close()


def test_close_ends_all_concurrent_requests(scripted: ScriptedGenerator) -> None:
    engine = LocalEngine(open_roster(()), lambda _check: {SKETCH_ID: scripted}, max_concurrency=3)
    engine.start()
    gates = [Gate() for _ in range(4)]
    futures = [engine.enqueue(str(number), REQUEST, gate) for number, gate in enumerate(gates)]
    assert all(gate.reached.wait(LIMIT_S) for gate in gates[:3])
    closing = threading.Thread(target=engine.close)
    closing.start()
    for gate in gates:
        gate.opened.set()
    closing.join(LIMIT_S)
    assert {type(future.exception(LIMIT_S)) for future in futures[3:]} == {Draining}
    assert all(future.done() for future in futures)


def test_cancelled_queued_request_never_starts(engine: LocalEngine, scripted: ScriptedGenerator) -> None:
    gate = Gate()
    first = engine.enqueue("first", REQUEST, gate)
    assert gate.reached.wait(LIMIT_S)
    waiting = engine.enqueue("waiting", REQUEST.changed(prompt="never"), StepCallback())

    engine.cancel("waiting")

    # The engine is still busy with the first request.
    assert waiting.cancelled()
    gate.opened.set()
    assert first.result(LIMIT_S).images
    assert "never" not in scripted.prompts


def test_cancelled_running_request_makes_room_for_next(engine: LocalEngine) -> None:
    gate = Gate()
    running = engine.enqueue("running", REQUEST, gate)
    following = engine.enqueue("following", REQUEST, StepCallback())
    assert gate.reached.wait(LIMIT_S)

    engine.cancel("running")
    gate.opened.set()

    assert isinstance(running.exception(LIMIT_S), Cancelled)
    assert gate.seen == [StepDone(1, 3)]
    assert following.result(LIMIT_S).images


def test_cancel_of_finished_or_unknown_request_does_nothing(engine: LocalEngine) -> None:
    engine.enqueue("done", REQUEST, StepCallback()).result(LIMIT_S)

    engine.cancel("done")
    engine.cancel("unknown")

    assert engine.enqueue("done", REQUEST, StepCallback()).result(LIMIT_S).images


def test_future_cancelled_by_owner_does_not_stop_engine(engine: LocalEngine) -> None:
    gate = Gate()
    engine.enqueue("first", REQUEST, gate)
    assert gate.reached.wait(LIMIT_S)
    abandoned = engine.enqueue("abandoned", REQUEST, StepCallback())
    following = engine.enqueue("following", REQUEST, StepCallback())

    assert abandoned.cancel()
    gate.opened.set()

    assert following.result(LIMIT_S).images
    with pytest.raises(CancelledError):
        abandoned.result(LIMIT_S)


def test_close_fails_running_and_queued_requests(engine: LocalEngine, scripted: ScriptedGenerator) -> None:
    gate = Gate()
    futures = [engine.enqueue("running", REQUEST, gate)]
    assert gate.reached.wait(LIMIT_S)
    futures += [engine.enqueue(f"waiting {n}", REQUEST.changed(prompt="never"), StepCallback()) for n in range(3)]
    closing = threading.Thread(target=engine.close)

    closing.start()
    gate.opened.set()
    closing.join(LIMIT_S)

    assert not closing.is_alive()
    assert not wait_for(futures, LIMIT_S).not_done
    failures = [future.exception() for future in futures]
    assert all(isinstance(failure, Draining) and failure.retry_after_s > 0 for failure in failures)
    assert "never" not in scripted.prompts


def test_engine_can_be_closed_twice(engine: LocalEngine) -> None:
    engine.close()
    engine.close()


def test_unexpected_error_fails_only_its_request(engine: LocalEngine, caplog: pytest.LogCaptureFixture) -> None:
    futures = [
        engine.enqueue(str(number), request, StepCallback()) for number, request in enumerate((REQUEST, CRASH, REQUEST))
    ]

    failure = futures[1].exception(LIMIT_S)

    assert isinstance(failure, GenerationFailed)
    assert failure.message == "the engine failed with ZeroDivisionError"
    assert futures[0].result(LIMIT_S) == futures[2].result(LIMIT_S)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


def test_expected_error_fails_its_request_unchanged(engine: LocalEngine) -> None:
    refused, next_one = (
        engine.enqueue(str(number), request, StepCallback()) for number, request in enumerate((REFUSE, REQUEST))
    )

    failure = refused.exception(LIMIT_S)

    assert isinstance(failure, GenerationFailed)
    assert failure.message == "no"
    assert next_one.result(LIMIT_S).images


def test_request_for_unloaded_model_fails(engine: LocalEngine) -> None:
    failure = engine.enqueue("old", REQUEST.changed(model="mine/own"), StepCallback()).exception(LIMIT_S)

    assert isinstance(failure, GenerationFailed)
    assert failure.message == "the model mine/own is no longer loaded; start the server with it again"


@pytest.mark.timeout(600)
def test_built_in_model_stops_when_cancelled(sketch_engine: LocalEngine) -> None:
    gate = Gate()
    request = REQUEST.changed(prompt="a red apple", steps=12, count=4)
    running = sketch_engine.enqueue("running", request, gate)
    following = sketch_engine.enqueue("following", request.changed(steps=1, count=1), StepCallback())
    assert gate.reached.wait(LIMIT_S)

    sketch_engine.cancel("running")
    gate.opened.set()

    assert isinstance(running.exception(LIMIT_S), Cancelled)
    assert gate.seen == [StepDone(1, 12)]
    assert len(following.result(LIMIT_S).images) == 1


def test_close_stops_loading_at_next_check(scripted: ScriptedGenerator) -> None:
    asked = threading.Event()

    def load(check: CancelCheck) -> dict[str, Generator]:
        while True:
            check()
            asked.set()

    engine = LocalEngine(open_roster(()), load)
    engine.start()
    waiting = engine.enqueue("a", REQUEST, StepCallback())
    assert asked.wait(10)

    engine.close()

    with pytest.raises(Draining):
        waiting.result(10)
    assert not engine.is_ready
