"""The autoencoder's fit: its loss, its measure, and what is folded into its weights at the end."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from allaprima.flux import SKETCH, Autoencoder
from training.evaluate.psnr import score_psnr
from training.fit.autoencoder import decoder_loss, fit_decoder, fold_spread, image_loss


def test_a_picture_without_error_costs_nothing_and_an_even_error_its_size():
    assert float(image_loss(torch.zeros(1, 3, 8, 8))) == 0
    assert float(image_loss(torch.full((1, 3, 8, 8), -0.25))) == pytest.approx(0.25)


def test_an_error_that_changes_from_pixel_to_pixel_costs_more_than_an_even_one():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    checkered = (0.25 * (-1.0) ** (rows + columns)).expand(1, 3, 8, 8)

    # Its size, and twice that for every step to the right and downwards.
    assert float(image_loss(checkered)) == pytest.approx(0.25 + 0.5 + 0.5)


def test_an_error_twice_as_large_costs_the_decoder_as_much_more_whether_it_was_large_or_small():
    large = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    small = large / 50

    for error in (large, small):
        assert float(decoder_loss(2 * error) - decoder_loss(error)) == pytest.approx(2.5 * math.log(2), abs=0.02)


def test_the_decoder_is_not_told_more_of_one_picture_than_of_another():
    one, other = torch.full((1, 3, 8, 8), 0.1), torch.full((1, 3, 8, 8), 0.001)

    both = float(decoder_loss(torch.cat((one, other))))

    squares = math.log(0.1**2) + math.log(0.001**2 + 1e-6)
    assert both == pytest.approx(squares / 2 + 0.5 * math.log((0.1 + 0.001) / 2), abs=1e-3)


class Grey:
    """Draws scenes of even colours."""

    drawn = 0

    def pool(self, count):
        self.drawn += count
        return [self.pixels(range(count)), self.pixels(range(1), 192, 64)]

    def pixels(self, seeds, width=128, height=128):
        levels = torch.linspace(0, 255, 3 * len(seeds)).to(torch.uint8)
        return levels.view(-1, 3, 1, 1).expand(-1, -1, height, width)


def test_the_decoders_fit_leaves_the_encoder_as_it_was_and_goes_on_from_its_checkpoint(tmp_path):
    torch.manual_seed(0)
    fitted = Autoencoder(SKETCH.autoencoder).eval()
    fitted_on, again, renderer = copy.deepcopy(fitted), copy.deepcopy(fitted), Grey()

    fit_decoder(tmp_path, fitted_on, renderer, 0.1, 4, torch.device("cpu"))
    fit_decoder(tmp_path, again, renderer, 0.1, 4, torch.device("cpu"))

    assert renderer.drawn == 4
    before = fitted.state_dict()
    for name, weight in fitted_on.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert torch.equal(weight, before[name]) == name.startswith("encoder.")
    pixels = renderer.render(range(3))
    assert score_psnr(fitted_on, pixels) > score_psnr(fitted, pixels)


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
