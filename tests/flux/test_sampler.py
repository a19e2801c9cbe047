"""The sampler against diffusers' FlowMatchEulerDiscreteScheduler without shift."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from allaprima.flux.sampler import euler_step, schedule, velocity_to
from tests.flux.oracles import relative_error, scheduler_oracle

STEPS = range(1, 13)


@pytest.mark.parametrize("steps", STEPS)
def test_schedule_equals_diffusers(steps: int) -> None:
    scheduler = scheduler_oracle()
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
    assert schedule(steps) == pytest.approx(scheduler.sigmas.tolist(), abs=1e-7)
    assert schedule(steps)[:-1] == pytest.approx((scheduler.timesteps / 1000).tolist(), abs=1e-7)


@pytest.mark.parametrize("steps", STEPS)
def test_euler_steps_equal_diffusers(steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    scheduler = scheduler_oracle()
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
    path = schedule(steps)
    ours = theirs = torch.randn(2, 6, 16, generator=generator)
    for i, timestep in enumerate(scheduler.timesteps):
        velocity = torch.randn(ours.shape, generator=generator)
        ours = euler_step(ours, velocity, path[i], path[i + 1])
        theirs = scheduler.step(velocity, timestep, theirs, return_dict=False)[0]
        assert relative_error(ours, theirs) < 1e-6


@pytest.mark.parametrize("steps", STEPS)
def test_schedule_falls_evenly_from_noise_to_image(steps: int) -> None:
    path = schedule(steps)
    assert (path[0], path[-1], len(path)) == (1.0, 0.0, steps + 1)
    assert [a - b for a, b in pairwise(path)] == pytest.approx([1 / steps] * steps)


def test_exact_velocity_reaches_image_in_any_step_count() -> None:
    noise, image = torch.randn(2, 1, 5, 8, generator=torch.Generator().manual_seed(1))
    for steps in STEPS:
        x, path = noise, schedule(steps)
        for t, t_next in pairwise(path):
            x = euler_step(x, noise - image, t, t_next)
        assert relative_error(x, image) < 1e-6


def test_velocity_to_image_is_exact_at_every_time() -> None:
    noise, image = torch.randn(2, 1, 5, 8, generator=torch.Generator().manual_seed(2))
    for steps in STEPS:
        for t in schedule(steps)[:-1]:
            assert relative_error(velocity_to(image, torch.lerp(image, noise, t), t), noise - image) < 1e-5


def test_last_step_ends_at_predicted_image() -> None:
    img, finished = torch.randn(2, 1, 5, 8, generator=torch.Generator().manual_seed(3))
    assert relative_error(euler_step(img, velocity_to(finished.bfloat16(), img, 0.25), 0.25, 0.0), finished) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_step_is_computed_in_float32_from_bfloat16_inputs(dtype: torch.dtype) -> None:
    x, velocity = torch.randn(2, 1, 5, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    stepped = euler_step(x.to(dtype), velocity, 1.0, 2 / 3)
    assert stepped.dtype == torch.float32
    assert relative_error(stepped, x.double() - velocity.double() / 3) < 1e-6
