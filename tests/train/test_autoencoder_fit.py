"""The autoencoder's fit: its loss, its measure, and what is folded into its weights at the end."""

import pytest
import torch
from torch import Tensor, nn

from allaprima.flux import SKETCH, Autoencoder
from allaprima.train.autoencoder import fold_spread, picture_loss, score_psnr


def test_a_picture_without_error_costs_nothing_and_an_even_error_its_size():
    assert float(picture_loss(torch.zeros(1, 3, 8, 8))) == 0
    assert float(picture_loss(torch.full((1, 3, 8, 8), -0.25))) == pytest.approx(0.25)


def test_an_error_that_changes_from_pixel_to_pixel_costs_more_than_an_even_one():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    checkered = (0.25 * (-1.0) ** (rows + columns)).expand(1, 3, 8, 8)

    # Its size, and twice that for every step to the right and downwards.
    assert float(picture_loss(checkered)) == pytest.approx(0.25 + 0.5 + 0.5)


class Brightener(nn.Module):
    """An autoencoder that adds to every value."""

    def __init__(self, added: float) -> None:
        super().__init__()
        self.added = nn.Parameter(torch.tensor(added))

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels

    def decode(self, z: Tensor) -> Tensor:
        return z + self.added


def test_psnr_is_of_the_range_of_pictures_over_the_error():
    grey = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    # An error of a hundredth of the range: 20 log10(100).
    assert score_psnr(Brightener(0.02), grey) == pytest.approx(40, abs=0.01)


def test_psnr_does_not_see_what_is_whiter_than_white():
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert score_psnr(Brightener(0.5), white) == float("inf")


@torch.no_grad()
def test_folding_gives_latents_unit_deviation_and_changes_no_picture():
    torch.manual_seed(0)
    model = Autoencoder(SKETCH.autoencoder).eval()
    pixels = torch.randint(256, (4, 3, 128, 128), dtype=torch.uint8)
    signed = pixels / 127.5 - 1
    before = model.decode(model.encode(signed))

    fold_spread(model, pixels)

    z = model.encode(signed)
    assert torch.allclose(z.std(dim=(0, 2, 3)), torch.ones(z.shape[1]), atol=1e-3)
    assert torch.allclose(model.decode(z), before, atol=1e-3)
