"""A fit's schedule by the clock, which a written clock stands in for."""

import pytest
import torch
from torch import nn

from allaprima.train.progress import CHECKPOINT_S, LONGEST_STEP_S, LOOK_S, Progress


class Clock:
    """Tells the seconds that were spent on it, and no others."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_a_fit_takes_steps_until_its_minutes_are_used(clock):
    progress = Progress(minutes=0.5, clock=clock)

    for step in progress.steps():
        assert progress.share == pytest.approx(step / 15)
        clock.now_s += 2

    assert progress.step == 15
    assert progress.share == 1


def test_a_step_during_which_the_machine_slept_counts_as_a_long_one_and_no_more(clock):
    progress = Progress(minutes=1.0, clock=clock)

    steps = progress.steps()
    next(steps)
    clock.now_s += 3600
    next(steps)

    assert progress.elapsed_s == LONGEST_STEP_S


def test_rates_rise_over_the_first_steps_stay_and_fall_to_nothing(clock):
    progress = Progress(minutes=50.0, clock=clock)
    rates = []

    for _ in progress.steps():
        rates.append(progress.rate)
        clock.now_s += 3

    assert rates[0] == pytest.approx(0.01)
    assert rates[200] == 1
    assert rates[-1] < 0.01


def test_checkpoints_and_looks_are_due_once_per_their_time(clock):
    progress = Progress(minutes=1.0, clock=clock)

    assert not progress.is_checkpoint_due()
    clock.now_s += CHECKPOINT_S + 1
    assert progress.is_checkpoint_due()
    assert not progress.is_checkpoint_due()
    assert not progress.is_look_due()
    clock.now_s += LOOK_S
    assert progress.is_look_due()
    assert not progress.is_look_due()


def test_a_later_run_goes_on_from_a_checkpoint_with_weights_moments_and_time(clock, tmp_path):
    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(3)).sum().backward()
    optimizer.step()
    progress = Progress(minutes=1.0, clock=clock)
    steps = progress.steps()
    next(steps)
    clock.now_s += 5
    next(steps)
    progress.save(tmp_path / "fit.ckpt", {"network": network}, [optimizer])

    later, other = Progress(minutes=1.0, clock=clock), nn.Linear(3, 2)
    moments = torch.optim.AdamW(other.parameters())
    later.resume(tmp_path / "fit.ckpt", {"network": other}, [moments])

    assert (later.step, later.elapsed_s) == (1, 5)
    assert torch.equal(other.weight, network.weight)
    assert torch.equal(moments.state[other.weight]["exp_avg"], optimizer.state[network.weight]["exp_avg"])


def test_without_a_checkpoint_a_fit_begins_anew(clock, tmp_path):
    progress = Progress(minutes=1.0, clock=clock)
    progress.resume(tmp_path / "none.ckpt", {}, [])
    assert (progress.step, progress.elapsed_s) == (0, 0)
