"""Tiled decode gives the same image as the plain decoder, and can be cancelled at every tile."""

import pytest
import torch

from allaprima.flux import Autoencoder, AutoencoderConfig, tiled_decode
from tests.flux.oracles import randomize

CONFIG = AutoencoderConfig(
    ch=16, ch_mult=(1, 2, 2), num_res_blocks=2, z_channels=4, scale_factor=0.3611, shift_factor=0.1159, groups=8
)


def random_autoencoder(config: AutoencoderConfig = CONFIG) -> Autoencoder:
    autoencoder = Autoencoder(config)
    randomize(autoencoder, seed=7)
    return autoencoder


def latents(rows: int, columns: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, CONFIG.z_channels, rows, columns, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("tile_rows", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("rows", "columns", "batch"), [(5, 3, 1), (4, 6, 2)])
def test_tiled_decode_equals_plain_decode(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, batch: int, tile_rows: int
) -> None:
    autoencoder, z = random_autoencoder(), latents(rows, columns, batch)
    whole = autoencoder.decoder(z, lambda: None)

    monkeypatch.setattr(tiled_decode, "MAX_TILE_VALUES", tile_rows * columns * 4 * CONFIG.ch * batch)
    tiled = autoencoder.decoder.decode_tiled(z, lambda: None)

    assert tiled.shape == whole.shape
    assert torch.allclose(tiled, whole, atol=1e-5, rtol=1e-4)


def test_decode_records_gradients_when_enabled() -> None:
    with torch.enable_grad():
        assert random_autoencoder().decode(latents(2, 2)).requires_grad


def test_cancel_check_is_called_before_every_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    autoencoder, z = random_autoencoder(), latents(4, 4)
    calls = 0

    def check_cancelled() -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise Stop

    monkeypatch.setattr(tiled_decode, "MAX_TILE_VALUES", 16 * 4 * CONFIG.ch)
    with pytest.raises(Stop):
        autoencoder.decoder.decode_tiled(z, check_cancelled)
