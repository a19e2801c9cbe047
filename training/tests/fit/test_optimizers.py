"""Flattened kernels, and the optimizer of each parameter."""

import torch
from torch import nn

from training.fit.optimizers import flatten_kernels, make_optimizers, restore_kernels


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 1))


def test_flattened_kernels_are_equivalent_and_restorable():
    plain, flat = network(), network()
    pixels = torch.randn(1, 2, 8, 8)

    matrices = flatten_kernels(flat, (flat[0],))

    assert [tuple(matrix.shape) for matrix in matrices] == [(4, 27), (1, 4)]
    assert torch.equal(flat(pixels), plain(pixels))
    restore_kernels(flat)
    assert flat.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(flat(pixels), plain(pixels))


def test_muon_optimizes_matrices_and_adam_the_rest():
    flat = network()
    matrices = flatten_kernels(flat, (flat[0],))

    muon, adam = make_optimizers(flat, matrices, 0.1, 0.01)

    (by_muon,), (by_adam,) = muon.param_groups, adam.param_groups
    assert [id(matrix) for matrix in by_muon["params"]] == [id(matrix) for matrix in matrices]
    optimized = [id(parameter) for parameter in by_muon["params"] + by_adam["params"]]
    assert sorted(optimized) == sorted(id(parameter) for parameter in flat.parameters())
    assert (by_muon["lr"], by_adam["lr"]) == (0.1, 0.01)
