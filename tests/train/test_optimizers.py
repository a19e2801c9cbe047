"""Kernels as matrices, rates, and clipped steps."""

import pytest
import torch
from torch import nn

from allaprima.train.optimizers import Rates, flatten_kernels, make_optimizers, restore_kernels


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 1))


def test_kernels_kept_as_matrices_compute_the_same_and_come_back():
    plain, flat = network(), network()
    pixels = torch.randn(1, 2, 8, 8)

    matrices = flatten_kernels(flat, (flat[0],))

    assert [tuple(matrix.shape) for matrix in matrices] == [(4, 27), (1, 4)]
    assert torch.equal(flat(pixels), plain(pixels))
    restore_kernels(flat)
    assert flat.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(flat(pixels), plain(pixels))


def test_every_parameter_is_moved_by_one_optimizer_and_scaled_rates_scale_the_step():
    flat = network()
    optimizers = make_optimizers(flat, flatten_kernels(flat, (flat[0],)), 0.1, 0.01)
    rates = Rates(optimizers)
    before = [parameter.clone() for parameter in flat.parameters()]

    rates.scale(0.0)
    rates.step(flat(torch.ones(1, 2, 8, 8)).square().sum(), flat.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, flat.parameters(), strict=True))

    rates.scale(0.5)
    assert [optimizer.param_groups[0]["lr"] for optimizer in optimizers] == pytest.approx([0.05, 0.005])
    rates.step(flat(torch.ones(1, 2, 8, 8)).square().sum(), flat.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, flat.parameters(), strict=True))
    gradients = torch.cat([parameter.grad.flatten() for parameter in flat.parameters()])
    assert float(gradients.norm()) == pytest.approx(1.0, abs=1e-3)
