"""PSNR of an autoencoder."""

import pytest
import torch
from torch import Tensor, nn

from training.evaluate.psnr import score_psnr


class Brightener(nn.Module):
    """An autoencoder that adds to every value."""

    def __init__(self, added: float) -> None:
        super().__init__()
        self.added = nn.Parameter(torch.tensor(added))

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels

    def decode(self, z: Tensor) -> Tensor:
        return z + self.added


def test_psnr_is_relative_to_the_range_of_images():
    grey = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    # The PSNR of an error of a hundredth of the range is 20 log10(100).
    assert score_psnr(Brightener(0.02), grey) == pytest.approx(40, abs=0.01)


def test_psnr_clamps_decoded_values_to_the_range():
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert score_psnr(Brightener(0.5), white) == float("inf")
