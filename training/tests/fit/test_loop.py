"""The fitting loop with a fake clock: schedule, steps and checkpoints."""

import pytest
import torch
from torch import nn

from training.fit.loop import CHECKPOINT_S, DECAY_FROM, LONGEST_STEP_S, SNAPSHOT_S, WARM_STEPS, Fit


class FakeClock:
    """A clock that the test advances."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def start(clock, tmp_path):
    """Return a function that starts a fit of the same network, from its checkpoint if one exists."""

    def start_fit(minutes=1.0):
        torch.manual_seed(0)
        network = nn.Linear(3, 2)
        optimizers = [torch.optim.AdamW(network.parameters(), lr=0.1)]
        return Fit(tmp_path / "fit.ckpt", {"network": network}, optimizers, minutes, seed=7, clock=clock)

    return start_fit


def descend(fit):
    """Take one step on random data."""
    fit.descend(fit.networks["network"](torch.randn(4, 3)).square().sum())


def weight(fit):
    return fit.networks["network"].weight


def test_fit_steps_until_its_minutes_are_used(clock, start):
    fit = start(minutes=0.5)

    for step in fit.steps():
        assert fit.progress == pytest.approx(step / 15)
        clock.now_s += 2

    assert fit.step == 15
    assert fit.progress == 1


def test_fit_of_zero_minutes_takes_no_steps(start):
    assert list(start(minutes=0.0).steps()) == []


def test_step_time_is_capped_after_machine_suspend(clock, start):
    fit = start()

    steps = fit.steps()
    next(steps)
    clock.now_s += 3600
    next(steps)

    assert fit.elapsed_s == LONGEST_STEP_S


def test_rates_warm_up_stay_constant_and_decay_to_zero(clock, start):
    fit, history = start(minutes=50.0), []

    for _ in fit.steps():
        descend(fit)
        history.append((fit.progress, fit.optimizers[0].param_groups[0]["lr"]))
        clock.now_s += 3

    rates = [rate for _, rate in history]
    assert rates[:WARM_STEPS] == pytest.approx([0.1 * (step + 1) / WARM_STEPS for step in range(WARM_STEPS)])
    assert {rate for share, rate in history[WARM_STEPS:] if share < DECAY_FROM} == {0.1}
    assert rates[WARM_STEPS:] == sorted(rates[WARM_STEPS:], reverse=True)
    assert rates[-1] < 0.001


def test_step_changes_all_parameters_and_clips_gradient(start):
    fit = start()
    before = [parameter.clone() for parameter in fit.networks["network"].parameters()]

    fit.descend(1000 * fit.networks["network"](torch.ones(1, 3)).square().sum())

    after = list(fit.networks["network"].parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    gradients = torch.cat([parameter.grad.flatten() for parameter in after])
    assert float(gradients.norm()) == pytest.approx(1.0, abs=1e-3)


def test_snapshot_is_due_once_per_interval(clock, start):
    fit = start()
    assert not fit.is_snapshot_due()
    clock.now_s += SNAPSHOT_S + 1
    assert fit.is_snapshot_due()
    assert not fit.is_snapshot_due()


def test_resumed_fit_equals_uninterrupted_fit(clock, start, tmp_path):
    whole = start(minutes=2.0)
    for _ in whole.steps():
        descend(whole)
        clock.now_s += LONGEST_STEP_S
    (tmp_path / "fit.ckpt").unlink()

    first = start(minutes=2.0)
    for step in first.steps():
        descend(first)
        # After this pause a checkpoint is due.
        clock.now_s += CHECKPOINT_S + 1 if step == 4 else LONGEST_STEP_S
        if step == 6:
            break
    torch.randn(10)
    again = start(minutes=2.0)
    taken = []
    for step in again.steps():
        descend(again)
        taken.append(step)
        clock.now_s += LONGEST_STEP_S

    assert taken == list(range(5, 12))
    assert (again.step, again.elapsed_s) == (whole.step, whole.elapsed_s)
    assert torch.equal(weight(again), weight(whole))


def test_each_step_draws_different_random_numbers(clock, start):
    drawn = []
    for _ in start(minutes=0.5).steps():
        drawn.append(float(torch.rand(1)))
        clock.now_s += 5
    assert len(set(drawn)) == len(drawn) == 6


def test_resumed_fit_uses_rates_of_current_run(clock, start):
    first = start(minutes=50.0)
    for step in first.steps():
        descend(first)
        clock.now_s += 1
        if step == WARM_STEPS:
            break
    first.optimizers[0].param_groups[0]["lr"] = 0.5
    first.save()

    again = start(minutes=50.0)
    next(again.steps())
    descend(again)

    assert again.optimizers[0].param_groups[0]["lr"] == 0.1
