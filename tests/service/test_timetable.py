"""When the engine will have done what it has, alone and abreast."""

import pytest

from allaprima.domain.generation import GenerationRequest, Timings
from allaprima.domain.jobs import Job, JobOptions, JobState
from allaprima.service.jobs.eta import Eta
from fakes import FakeClock

REQUEST = GenerationRequest(prompt="a boat", seed=7, model="allaprima/sketch", width=512, height=512, steps=4)
#: Two seconds in all.
TIMINGS = Timings(text=0.1, steps=(0.4,) * 4, decode=0.2, safety=0.05, encode=0.05)


def job(name: str) -> Job:
    return Job(name, "account", "key", JobState.RUNNING, REQUEST, 0.0, JobOptions("allaprima/sketch"))


def paint(timetable: Eta, clock: FakeClock, *names: str, seconds: float) -> None:
    """Paint some jobs beside each other."""
    for name in names:
        timetable.give(job(name))
        timetable.begin(job(name))
    clock.now += seconds
    for name in names:
        timetable.end(job(name), TIMINGS)
        timetable.take(name)


@pytest.fixture
def timetable(clock: FakeClock) -> Eta:
    """One that has seen a job of two seconds, painted alone."""
    made = Eta(2, clock)
    paint(made, clock, "seen", seconds=2.0)
    return made


def test_an_engine_with_nothing_to_do_is_free(timetable: Eta) -> None:
    assert (timetable.start_in(0, 0.0), timetable.room_in()) == (0.0, 0.0)


def test_a_job_that_was_begun_needs_what_is_left_of_it(timetable: Eta, clock: FakeClock) -> None:
    timetable.give(job("a"))
    timetable.begin(job("a"))
    clock.now += 0.5
    assert timetable.finish_in("a") == pytest.approx(1.5)
    assert timetable.room_in() == pytest.approx(1.5)


def test_a_job_that_takes_longer_than_thought_is_nearly_done(timetable: Eta, clock: FakeClock) -> None:
    timetable.give(job("a"))
    timetable.begin(job("a"))
    clock.now += 50
    assert timetable.finish_in("a") == pytest.approx(0.1)


def test_the_next_job_is_done_behind_the_one_before(timetable: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        timetable.give(job(name))
    timetable.begin(job("a"))
    clock.now += 0.5
    assert timetable.finish_in("b") == pytest.approx(3.5)


def test_jobs_abreast_take_longer_each_and_no_longer_together(timetable: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        timetable.give(job(name))
        timetable.begin(job(name))
    clock.now += 1.0
    assert timetable.finish_in("a") == timetable.finish_in("b") == pytest.approx(3.0)


def test_what_jobs_cost_abreast_is_what_passed_over_how_many_they_were(clock: FakeClock) -> None:
    timetable = Eta(2, clock)
    paint(timetable, clock, "a", "b", seconds=2.0)
    assert timetable.pace.seconds(REQUEST) == pytest.approx(1.0)


def test_a_job_that_is_joined_by_another_has_done_what_it_did_alone(timetable: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        timetable.give(job(name))
    timetable.begin(job("a"))
    clock.now += 1.5
    timetable.begin(job("b"))
    # Half a second of the engine is left, of which it has every other.
    assert timetable.finish_in("a") == pytest.approx(1.0)
    clock.now += 1.0
    timetable.end(job("a"), TIMINGS)
    assert timetable.finish_in("b") == pytest.approx(1.5)


def test_a_job_begins_at_once_where_a_place_is_free(timetable: Eta) -> None:
    timetable.give(job("a"))
    timetable.begin(job("a"))
    assert timetable.start_in(0, 0.0) == 0.0
    assert timetable.start_in(1, 2.0) > 0.0


def test_an_engine_of_one_place_begins_when_all_before_are_done(clock: FakeClock) -> None:
    timetable = Eta(1, clock)
    paint(timetable, clock, "seen", seconds=2.0)
    timetable.give(job("a"))
    timetable.begin(job("a"))
    clock.now += 0.5
    assert timetable.start_in(0, 0.0) == pytest.approx(1.5)
    assert timetable.start_in(3, 6.0) == pytest.approx(7.5)


def test_a_job_that_is_painted_and_waits_to_be_stored_costs_nothing(timetable: Eta, clock: FakeClock) -> None:
    for name in ("a", "b"):
        timetable.give(job(name))
    timetable.begin(job("a"))
    clock.now += 2.0
    timetable.end(job("a"), TIMINGS)
    timetable.begin(job("b"))
    assert timetable.finish_in("b") == pytest.approx(2.0)


def test_jobs_that_come_one_behind_the_other_are_never_more_than_are_painted_abreast(clock: FakeClock) -> None:
    timetable = Eta(2, clock)
    for name in ("a", "b", "c", "d"):
        timetable.give(job(name))
    timetable.begin(job("a"))
    timetable.begin(job("b"))
    for ended, begun in (("a", "c"), ("b", "d")):
        clock.now += 2.0
        timetable.begin(job(begun))
        timetable.end(job(ended), None if ended == "a" else TIMINGS)
        timetable.take(ended)
    assert timetable.pace.seconds(REQUEST) == pytest.approx(4.0 / 2)


def test_room_comes_when_a_job_is_stored(timetable: Eta, clock: FakeClock) -> None:
    timetable.stored(0.25)
    timetable.give(job("a"))
    timetable.begin(job("a"))
    clock.now += 1.0
    assert timetable.room_in() == pytest.approx(1.25)
    assert timetable.take("a")
    assert not timetable.take("a")
    assert timetable.start_in(0, 0.0) == 0.0
