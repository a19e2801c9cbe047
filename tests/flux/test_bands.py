"""Decoding by bands: the picture of the whole decoder, in far less memory, stopped at any band."""

import pytest
import torch
from oracles import randomize

from allaprima.flux import Autoencoder, AutoencoderConfig, bands

CONFIG = AutoencoderConfig(
    ch=16, ch_mult=(1, 2, 2), num_res_blocks=2, z_channels=4, scale_factor=0.3611, shift_factor=0.1159, groups=8
)


def random_autoencoder(config: AutoencoderConfig = CONFIG) -> Autoencoder:
    made = Autoencoder(config)
    randomize(made, seed=7)
    return made


def latents(rows: int, columns: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, CONFIG.z_channels, rows, columns, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("rows_a_band", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("rows", "columns", "batch"), [(5, 3, 1), (4, 6, 2)])
def test_bands_of_any_height_give_the_whole_decoders_picture(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, batch: int, rows_a_band: int
) -> None:
    made, z = random_autoencoder(), latents(rows, columns, batch)
    whole = made.decoder(z, lambda: None)

    monkeypatch.setattr(bands, "BAND", rows_a_band * columns * 4 * CONFIG.ch * batch)
    banded = made.decoder.by_bands(z, lambda: None)

    assert banded.shape == whole.shape
    assert torch.allclose(banded, whole, atol=1e-5, rtol=1e-4)


def test_a_decode_that_needs_gradients_has_them() -> None:
    with torch.enable_grad():
        assert random_autoencoder().decode(latents(2, 2)).requires_grad


def test_check_is_asked_before_every_band_and_stops_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    made, z = random_autoencoder(), latents(4, 4)
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise Stop

    monkeypatch.setattr(bands, "BAND", 16 * 4 * CONFIG.ch)
    with pytest.raises(Stop):
        made.decoder.by_bands(z, check)
