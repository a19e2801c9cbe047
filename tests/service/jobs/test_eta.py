"""Predicted start and finish times, for engines with `max_concurrency` 1 and 2."""

import pytest

from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.domain.jobs import Job, JobOptions, JobState
from allaprima.service.jobs.eta import Eta
from tests.fakes import FakeClock

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=512, height=512, steps=4)
#: Two seconds in total.
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
    """Estimates for two concurrent jobs, after one job of two seconds that ran alone."""
    made = Eta(2, clock)
    run(made, clock, "seen", seconds=2.0)
    return made


def test_idle_engine_starts_job_at_once(eta: Eta) -> None:
    assert (eta.start_in(0, 0.0), eta.next_slot_in()) == (0.0, 0.0)


def test_running_job_needs_rest_of_its_estimate(eta: Eta, clock: FakeClock) -> None:
    eta.submitted(job("a"))
    eta.started(job("a"))
    clock.now += 0.5
    assert eta.finish_in("a") == pytest.approx(1.5)
    assert eta.next_slot_in() == pytest.approx(1.5)


def test_job_over_its_estimate_is_nearly_done(eta: Eta, clock: FakeClock) -> None:
    eta.submitted(job("a"))
    eta.started(job("a"))
    clock.now += 50
    assert eta.finish_in("a") == pytest.approx(0.1)


def test_job_finishes_after_previous_job(eta: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        eta.submitted(job(name))
    eta.started(job("a"))
    clock.now += 0.5
    assert eta.finish_in("b") == pytest.approx(3.5)


def test_concurrent_jobs_share_engine(eta: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        eta.submitted(job(name))
        eta.started(job(name))
    clock.now += 1.0
    assert eta.finish_in("a") == eta.finish_in("b") == pytest.approx(3.0)


def test_concurrent_jobs_are_measured_by_share_of_time(clock: FakeClock) -> None:
    eta = Eta(2, clock)
    run(eta, clock, "a", "b", seconds=2.0)
    assert eta.seconds(REQUEST) == pytest.approx(1.0)


def test_job_keeps_progress_when_another_starts(eta: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        eta.submitted(job(name))
    eta.started(job("a"))
    clock.now += 1.5
    eta.started(job("b"))
    # It needs 0.5 s of compute and has half of the engine.
    assert eta.finish_in("a") == pytest.approx(1.0)
    clock.now += 1.0
    eta.generated(job("a"), TIMINGS)
    assert eta.finish_in("b") == pytest.approx(1.5)


def test_free_slot_starts_job_at_once(eta: Eta) -> None:
    eta.submitted(job("a"))
    eta.started(job("a"))
    assert eta.start_in(0, 0.0) == 0.0
    assert eta.start_in(1, 2.0) > 0.0


def test_single_slot_starts_job_after_all_before(clock: FakeClock) -> None:
    eta = Eta(1, clock)
    run(eta, clock, "seen", seconds=2.0)
    eta.submitted(job("a"))
    eta.started(job("a"))
    clock.now += 0.5
    assert eta.start_in(0, 0.0) == pytest.approx(1.5)
    assert eta.start_in(3, 6.0) == pytest.approx(7.5)


def test_job_waiting_to_be_stored_takes_no_engine_time(eta: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        eta.submitted(job(name))
    eta.started(job("a"))
    clock.now += 2.0
    eta.generated(job("a"), TIMINGS)
    eta.started(job("b"))
    assert eta.finish_in("b") == pytest.approx(2.0)


def test_early_start_report_does_not_raise_concurrency(clock: FakeClock) -> None:
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


def test_next_job_leaves_queue_when_result_is_stored(eta: Eta, clock: FakeClock) -> None:
    eta.stored(0.25)
    eta.submitted(job("a"))
    eta.started(job("a"))
    clock.now += 1.0
    assert eta.next_slot_in() == pytest.approx(1.25)
    eta.released("a")
    assert eta.start_in(0, 0.0) == 0.0


def test_start_reported_after_release_is_ignored(clock: FakeClock) -> None:
    eta = Eta(2, clock)
    run(eta, clock, "seen", seconds=2.0)
    eta.submitted(job("cancelled"))
    eta.released("cancelled")
    eta.started(job("cancelled"))
    eta.submitted(job("a"))
    eta.started(job("a"))
    assert eta.finish_in("a") == pytest.approx(2.0)
