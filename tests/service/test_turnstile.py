"""Refused clients are told a time each; those who keep to it get in one after another."""

import heapq

import pytest
from allaprima.service.jobs.turnstile import EARLY_S, MANY, PATIENCE_S, Turnstile

#: A client, and another.
ONE, OTHER = 1, 2


def refuse(
    turnstile: Turnstile, now: float, who: int = ONE, *, room_in_s: float = 1.0, was_told: bool = False
) -> float:
    return turnstile.refuse(now, who, 0, room_in_s, 2.0, was_told=was_told)


def test_the_first_is_told_the_next_opening_and_each_further_one_the_opening_after() -> None:
    turnstile = Turnstile()
    assert [refuse(turnstile, 100.0, room_in_s=0.5) for _ in range(4)] == [0.5, 2.5, 4.5, 6.5]


def test_room_that_is_there_but_promised_is_reckoned_with() -> None:
    turnstile = Turnstile()
    for _ in range(3):
        refuse(turnstile, 100.0)
    # Two of the three have their room already, so the fourth comes in at the second opening from now.
    assert turnstile.refuse(100.5, ONE, 2, 0.5, 2.0, was_told=False) == 0.5 + 2.0


def test_a_client_that_comes_as_told_is_known_once() -> None:
    turnstile = Turnstile()
    refuse(turnstile, 100.0)
    assert not turnstile.keep(100.9, ONE)
    assert turnstile.keep(101.0 - EARLY_S, ONE)
    assert not turnstile.keep(101.0, ONE)
    assert turnstile.promised == 0


def test_whoever_comes_when_another_was_told_to_does_not_take_its_place() -> None:
    turnstile = Turnstile()
    refuse(turnstile, 100.0)
    assert not turnstile.keep(101.0, OTHER)
    assert refuse(turnstile, 101.0, OTHER) == 1.0 + 2.0
    assert turnstile.keep(101.01, ONE)


def test_whoever_came_as_told_and_found_no_room_is_next() -> None:
    turnstile = Turnstile()
    for _ in range(3):
        refuse(turnstile, 100.0)
    assert turnstile.keep(101.0, ONE)
    assert refuse(turnstile, 101.0, room_in_s=0.25, was_told=True) == 0.25


def test_of_several_who_came_as_told_and_found_no_room_each_has_an_opening_of_its_own() -> None:
    turnstile = Turnstile()
    for _ in range(3):
        refuse(turnstile, 100.0)
    waits = []
    for now in (101.0, 103.0, 105.0):
        assert turnstile.keep(now, ONE)
        waits.append(now + refuse(turnstile, now, room_in_s=6.0 - (now - 101.0), was_told=True))
    assert waits == [107.0, 109.0, 111.0]


def test_promises_to_those_who_never_come_back_are_forgotten() -> None:
    turnstile = Turnstile()
    refuse(turnstile, 100.0)
    assert not turnstile.keep(101.1 + PATIENCE_S, ONE)
    assert turnstile.promised == 0


def test_there_is_an_end_to_what_is_remembered() -> None:
    turnstile = Turnstile()
    for _ in range(MANY + 10):
        refuse(turnstile, 100.0)
    assert turnstile.promised == MANY


def test_room_that_is_there_is_kept_for_those_alone_who_come_soon() -> None:
    turnstile = Turnstile()
    for _ in range(30):
        refuse(turnstile, 100.0)
    assert turnstile.promised == 30
    # Of those told 101, 103, 105 ...: two in the next two seconds.
    assert turnstile.due(101.5, 0.1) == 2
    assert turnstile.due(101.5, 10.0) == 6
    turnstile.keep(104.0, OTHER)
    assert turnstile.due(104.0, 0.1) == 2


@pytest.mark.parametrize("clients", [3, 30])
def test_in_a_play_with_a_steady_server_all_come_back_once(clients: int) -> None:
    """A queue for ten, a job a second, clients that submit again as soon as they got in."""
    turnstile, queue_size, job_s = Turnstile(), 10, 1.0
    in_queue, refusals, first_told = 0, [], {}
    moments = [(0.0, number) for number in range(clients + queue_size)]
    heapq.heapify(moments)
    freed = 0.0
    while moments and len(refusals) < 300:
        now, client = heapq.heappop(moments)
        while in_queue and freed + job_s <= now + 1e-9:
            freed += job_s
            in_queue -= 1
        room, was_told = queue_size - in_queue, turnstile.keep(now, client)
        if room > (0 if was_told else turnstile.promised):
            in_queue += 1
            if client in first_told:
                at, told = first_told.pop(client)
                refusals.append(abs(told - (now - at)) / max(now - at, 1e-9))
            heapq.heappush(moments, (now + 0.05, client))
            continue
        wait_s = turnstile.refuse(now, client, room, freed + job_s - now, job_s, was_told=was_told)
        first_told.setdefault(client, (now, wait_s))
        heapq.heappush(moments, (now + wait_s, client))
    assert max(refusals) <= 0.01
