"""The autoencoder's fit: its losses, PSNR, and the folding of the latents' deviation."""

import copy
import math

import pytest
import torch

from allaprima.flux import SKETCH, Autoencoder
from training.evaluate.psnr import score_psnr
from training.fit.autoencoder import decoder_loss, fit_decoder, fold_deviations, image_loss


def test_image_loss_of_constant_error_is_its_magnitude():
    assert float(image_loss(torch.zeros(1, 3, 8, 8))) == 0
    assert float(image_loss(torch.full((1, 3, 8, 8), -0.25))) == pytest.approx(0.25)


def test_image_loss_of_alternating_error_is_higher():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    alternating = (0.25 * (-1.0) ** (rows + columns)).expand(1, 3, 8, 8)

    # The magnitude, plus twice the magnitude for the differences in each direction.
    assert float(image_loss(alternating)) == pytest.approx(0.25 + 0.5 + 0.5)


def test_doubled_error_adds_constant_to_decoder_loss():
    large = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    small = large / 50

    for error in (large, small):
        assert float(decoder_loss(2 * error) - decoder_loss(error)) == pytest.approx(2.5 * math.log(2), abs=0.02)


def test_decoder_loss_weights_all_images_equally():
    one, other = torch.full((1, 3, 8, 8), 0.1), torch.full((1, 3, 8, 8), 0.001)

    both = float(decoder_loss(torch.cat((one, other))))

    squares = math.log(0.1**2) + math.log(0.001**2 + 1e-6)
    assert both == pytest.approx(squares / 2 + 0.5 * math.log((0.1 + 0.001) / 2), abs=1e-3)


class PlainRenderer:
    """Renders scenes of one colour each."""

    rendered = 0

    def render_pool(self, count):
        self.rendered += count
        return [self.render(range(count)), self.render(range(1), 192, 64)]

    def render(self, seeds, width=128, height=128):
        levels = torch.linspace(0, 255, 3 * len(seeds)).to(torch.uint8)
        return levels.view(-1, 3, 1, 1).expand(-1, -1, height, width)


def test_decoder_fit_keeps_encoder_and_resumes(tmp_path, minutes_of):
    torch.manual_seed(0)
    fitted = Autoencoder(SKETCH.autoencoder).eval()
    once, twice, renderer = copy.deepcopy(fitted), copy.deepcopy(fitted), PlainRenderer()

    fit_decoder(tmp_path, once, renderer, minutes_of(40), 4, torch.device("cpu"))
    fit_decoder(tmp_path, twice, renderer, minutes_of(40), 4, torch.device("cpu"))

    assert renderer.rendered == 4
    before = fitted.state_dict()
    for name, weight in once.state_dict().items():
        assert torch.equal(weight, twice.state_dict()[name])
        assert torch.equal(weight, before[name]) == name.startswith("encoder.")
    pixels = renderer.render(range(3))
    assert score_psnr(once, pixels) > score_psnr(fitted, pixels)


@torch.no_grad()
def test_folding_gives_unit_variance_and_same_images():
    torch.manual_seed(0)
    model = Autoencoder(SKETCH.autoencoder).eval()
    pixels = torch.randint(256, (4, 3, 128, 128), dtype=torch.uint8)
    signed = pixels / 127.5 - 1
    before = model.decode(model.encode(signed))

    fold_deviations(model, pixels)

    z = model.encode(signed)
    assert torch.allclose(z.std(dim=(0, 2, 3)), torch.ones(z.shape[1]), atol=1e-3)
    assert torch.allclose(model.decode(z), before, atol=1e-3)
