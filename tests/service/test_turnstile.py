"""Refused clients are told a time each; those who keep to it get in one after another."""

import heapq

import pytest

from allaprima.service.turnstile import MANY, Turnstile


def test_the_first_is_told_the_next_opening_and_each_further_one_the_opening_after() -> None:
    turnstile = Turnstile()
    assert [turnstile.refuse(100.0, 0.5, 2.0) for _ in range(4)] == [0.5, 2.5, 4.5, 6.5]


def test_a_kept_promise_is_no_longer_promised() -> None:
    turnstile = Turnstile()
    for _ in range(3):
        turnstile.refuse(100.0, 1.0, 2.0)
    turnstile.admit(101.0, 2.0)
    assert turnstile.refuse(101.5, 1.5, 2.0) == pytest.approx(105 + 2 - 101.5)


def test_whoever_came_as_told_and_found_no_room_is_next() -> None:
    turnstile = Turnstile()
    for _ in range(3):
        turnstile.refuse(100.0, 1.0, 2.0)
    assert turnstile.refuse(101.0, 0.25, 2.0) == 0.25


def test_promises_to_those_who_never_come_back_are_forgotten() -> None:
    turnstile = Turnstile()
    for _ in range(5):
        turnstile.refuse(100.0, 1.0, 2.0)
    assert turnstile.refuse(200.0, 1.0, 2.0) == 1.0


def test_there_is_an_end_to_what_is_remembered() -> None:
    turnstile = Turnstile()
    for _ in range(MANY + 10):
        turnstile.refuse(100.0, 1.0, 0.001)
    assert len(turnstile._promises) == MANY


@pytest.mark.parametrize("clients", [3, 30])
def test_in_a_play_with_a_steady_server_most_come_back_once(clients: int) -> None:
    """A queue for ten, a job a second, clients that submit again as soon as they got in."""
    turnstile, queue_size, job_s = Turnstile(), 10, 1.0
    in_queue, refusals, first_told = 0, [], {}
    moments = [(0.0, number) for number in range(clients + queue_size)]
    heapq.heapify(moments)
    freed = 0.0
    while moments and len(refusals) < 300:
        now, client = heapq.heappop(moments)
        while in_queue and freed + job_s <= now:
            freed += job_s
            in_queue -= 1
        if in_queue < queue_size:
            in_queue += 1
            turnstile.admit(now, job_s)
            if client in first_told:
                at, told = first_told.pop(client)
                refusals.append(abs(told - (now - at)) / max(now - at, 1e-9))
            heapq.heappush(moments, (now + 0.05, client))
            continue
        wait_s = turnstile.refuse(now, freed + job_s - now, job_s)
        first_told.setdefault(client, (now, wait_s))
        heapq.heappush(moments, (now + wait_s, client))
    ordered = sorted(refusals)
    assert ordered[len(ordered) // 2] <= 0.2
    assert ordered[int(0.9 * len(ordered))] <= 0.5
