"""How long a job will take, from how long others took."""

from dataclasses import replace

import pytest

from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.service.jobs.throughput import FIRST_GUESS_S, Throughput

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=512, height=512, steps=4)
TIMINGS = Timings(text=0.1, steps=(0.5,) * 4, decode=0.2, safety=0.05, encode=0.05)


def test_before_anything_was_measured_it_is_a_guess() -> None:
    assert Throughput().seconds(REQUEST) == FIRST_GUESS_S


def test_a_request_like_one_before_takes_as_long() -> None:
    pace = Throughput()
    for _ in range(5):
        pace.observe(REQUEST, TIMINGS, whole_s=2.5)
    assert pace.seconds(REQUEST) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({"steps": 8}, 0.1 + 0.1 + 8 * 0.5 + 0.3),
        ({"count": 3}, 0.1 + 0.1 + 3 * (4 * 0.5 + 0.3)),
        ({"width": 1024}, 0.1 + 0.1 + 2 * (4 * 0.5 + 0.3)),
    ],
)
def test_another_request_is_reckoned_from_its_steps_images_and_pixels(change: dict[str, int], seconds: float) -> None:
    pace = Throughput()
    pace.observe(REQUEST, TIMINGS, whole_s=2.5)
    assert pace.seconds(REQUEST.changed(**change)) == pytest.approx(seconds)


def test_a_size_is_reckoned_from_the_nearest_that_was_painted() -> None:
    pace = Throughput()
    pace.observe(REQUEST, TIMINGS, whole_s=2.4)
    pace.observe(REQUEST.changed(width=1024, height=1024), replace(TIMINGS, steps=(1.0,) * 4), whole_s=4.4)
    assert pace.seconds(REQUEST.changed(width=1024, height=1024)) == pytest.approx(4.4)
    assert pace.seconds(REQUEST) == pytest.approx(2.4)


def test_a_change_of_speed_is_learned() -> None:
    pace = Throughput()
    for _ in range(20):
        pace.observe(REQUEST, TIMINGS, whole_s=2.5)
    slow = Timings(text=0.2, steps=(1.0,) * 4, decode=0.4, safety=0.1, encode=0.1)
    for _ in range(20):
        pace.observe(REQUEST, slow, whole_s=5.0)
    assert pace.seconds(REQUEST) == pytest.approx(5.0, rel=0.05)


def test_models_are_measured_apart() -> None:
    pace = Throughput()
    pace.observe(REQUEST, TIMINGS, whole_s=2.5)
    assert pace.seconds(REQUEST.changed(model="flux/schnell")) == FIRST_GUESS_S
