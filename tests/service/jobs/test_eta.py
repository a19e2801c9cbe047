"""Start and finish times of jobs, for an engine with one and with several jobs at a time."""

import pytest

from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.domain.jobs import Job, JobOptions, JobState
from allaprima.service.jobs.eta import Eta
from fakes import FakeClock

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=512, height=512, steps=4)
#: Two seconds in all.
TIMINGS = Timings(text=0.1, steps=(0.4,) * 4, decode=0.2, safety=0.05, encode=0.05)


def job(name: str) -> Job:
    return Job(name, "account", "key", JobState.RUNNING, REQUEST, 0.0, JobOptions(model="allaprima/sketch"))


def run(eta: Eta, clock: FakeClock, *names: str, seconds: float) -> None:
    """Run some jobs concurrently."""
    for name in names:
        eta.submitted(job(name))
        eta.started(job(name))
    clock.now += seconds
    for name in names:
        eta.generated(job(name), TIMINGS)
        eta.released(name)


@pytest.fixture
def eta(clock: FakeClock) -> Eta:
    """Two jobs at a time, after one of two seconds that ran alone."""
    made = Eta(2, clock)
    run(made, clock, "seen", seconds=2.0)
    return made


def test_an_idle_engine_starts_at_once(eta: Eta) -> None:
    assert (eta.start_in(0, 0.0), eta.next_slot_in()) == (0.0, 0.0)


def test_a_running_job_needs_the_rest_of_its_estimate(eta: Eta, clock: FakeClock) -> None:
    eta.submitted(job("a"))
    eta.started(job("a"))
    clock.now += 0.5
    assert eta.finish_in("a") == pytest.approx(1.5)
    assert eta.next_slot_in() == pytest.approx(1.5)


def test_a_job_that_takes_longer_than_estimated_is_nearly_done(eta: Eta, clock: FakeClock) -> None:
    eta.submitted(job("a"))
    eta.started(job("a"))
    clock.now += 50
    assert eta.finish_in("a") == pytest.approx(0.1)


def test_a_job_finishes_after_the_one_before_it(eta: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        eta.submitted(job(name))
    eta.started(job("a"))
    clock.now += 0.5
    assert eta.finish_in("b") == pytest.approx(3.5)


def test_concurrent_jobs_share_the_engine(eta: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        eta.submitted(job(name))
        eta.started(job(name))
    clock.now += 1.0
    assert eta.finish_in("a") == eta.finish_in("b") == pytest.approx(3.0)


def test_concurrent_jobs_are_measured_by_their_share_of_the_time(clock: FakeClock) -> None:
    eta = Eta(2, clock)
    run(eta, clock, "a", "b", seconds=2.0)
    assert eta.seconds(REQUEST) == pytest.approx(1.0)


def test_a_job_keeps_its_progress_when_another_joins_it(eta: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        eta.submitted(job(name))
    eta.started(job("a"))
    clock.now += 1.5
    eta.started(job("b"))
    # It needs half a second of the engine, of which it has half.
    assert eta.finish_in("a") == pytest.approx(1.0)
    clock.now += 1.0
    eta.generated(job("a"), TIMINGS)
    assert eta.finish_in("b") == pytest.approx(1.5)


def test_a_job_starts_at_once_where_a_slot_is_free(eta: Eta) -> None:
    eta.submitted(job("a"))
    eta.started(job("a"))
    assert eta.start_in(0, 0.0) == 0.0
    assert eta.start_in(1, 2.0) > 0.0


def test_an_engine_with_one_slot_starts_a_job_when_all_before_it_are_done(clock: FakeClock) -> None:
    eta = Eta(1, clock)
    run(eta, clock, "seen", seconds=2.0)
    eta.submitted(job("a"))
    eta.started(job("a"))
    clock.now += 0.5
    assert eta.start_in(0, 0.0) == pytest.approx(1.5)
    assert eta.start_in(3, 6.0) == pytest.approx(7.5)


def test_a_generated_job_that_waits_to_be_stored_takes_no_engine_time(eta: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        eta.submitted(job(name))
    eta.started(job("a"))
    clock.now += 2.0
    eta.generated(job("a"), TIMINGS)
    eta.started(job("b"))
    assert eta.finish_in("b") == pytest.approx(2.0)


def test_a_start_reported_before_the_previous_end_does_not_raise_the_concurrency(clock: FakeClock) -> None:
    eta = Eta(2, clock)
    for name in ("a", "b", "c", "d"):
        eta.submitted(job(name))
    eta.started(job("a"))
    eta.started(job("b"))
    for ended, begun in (("a", "c"), ("b", "d")):
        clock.now += 2.0
        eta.started(job(begun))
        eta.generated(job(ended), None if ended == "a" else TIMINGS)
        eta.released(ended)
    assert eta.seconds(REQUEST) == pytest.approx(4.0 / 2)


def test_the_next_job_leaves_the_queue_when_one_is_stored(eta: Eta, clock: FakeClock) -> None:
    eta.stored(0.25)
    eta.submitted(job("a"))
    eta.started(job("a"))
    clock.now += 1.0
    assert eta.next_slot_in() == pytest.approx(1.25)
    eta.released("a")
    assert eta.start_in(0, 0.0) == 0.0


def test_a_start_that_is_reported_after_the_release_is_ignored(clock: FakeClock) -> None:
    eta = Eta(2, clock)
    run(eta, clock, "seen", seconds=2.0)
    eta.submitted(job("cancelled"))
    eta.released("cancelled")
    eta.started(job("cancelled"))
    eta.submitted(job("a"))
    eta.started(job("a"))
    assert eta.finish_in("a") == pytest.approx(2.0)
