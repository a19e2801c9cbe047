"""Compute seconds of a request, estimated from earlier jobs."""

import pytest

from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.service.jobs.throughput import INITIAL_ESTIMATE_S, Throughput

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=512, height=512, steps=4)
TIMINGS = Timings(text=0.1, steps=(0.5,) * 4, decode=0.2, safety=0.05, encode=0.05)


def test_first_estimate_is_constant() -> None:
    assert Throughput().seconds(REQUEST) == INITIAL_ESTIMATE_S


def test_estimate_is_time_of_equal_request() -> None:
    throughput = Throughput()
    for _ in range(5):
        throughput.observe(REQUEST, TIMINGS, whole_s=2.5)
    assert throughput.seconds(REQUEST) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({"steps": 8}, 0.1 + 0.1 + 8 * 0.5 + 0.3),
        ({"count": 3}, 0.1 + 0.1 + 3 * (4 * 0.5 + 0.3)),
        ({"width": 1024}, 0.1 + 0.1 + 2 * (4 * 0.5 + 0.3)),
    ],
)
def test_estimates_scale_with_steps_images_and_pixels(change: dict[str, int], seconds: float) -> None:
    throughput = Throughput()
    throughput.observe(REQUEST, TIMINGS, whole_s=2.5)
    assert throughput.seconds(REQUEST.changed(**change)) == pytest.approx(seconds)


def test_size_is_estimated_from_nearest_measured_size() -> None:
    throughput = Throughput()
    throughput.observe(REQUEST, TIMINGS, whole_s=2.4)
    throughput.observe(
        REQUEST.changed(width=1024, height=1024), TIMINGS.model_copy(update={"steps": (1.0,) * 4}), whole_s=4.4
    )
    assert throughput.seconds(REQUEST.changed(width=1024, height=1024)) == pytest.approx(4.4)
    assert throughput.seconds(REQUEST) == pytest.approx(2.4)


def test_estimates_follow_change_of_speed() -> None:
    throughput = Throughput()
    for _ in range(20):
        throughput.observe(REQUEST, TIMINGS, whole_s=2.5)
    slow = Timings(text=0.2, steps=(1.0,) * 4, decode=0.4, safety=0.1, encode=0.1)
    for _ in range(20):
        throughput.observe(REQUEST, slow, whole_s=5.0)
    assert throughput.seconds(REQUEST) == pytest.approx(5.0, rel=0.05)


def test_each_model_is_measured_separately() -> None:
    throughput = Throughput()
    throughput.observe(REQUEST, TIMINGS, whole_s=2.5)
    assert throughput.seconds(REQUEST.changed(model="flux/schnell")) == INITIAL_ESTIMATE_S
