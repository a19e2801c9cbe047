"""What a canvas looks like between two steps, at a price that one step does not feel.

A preview shows the picture that the last step took the noise for. The built-in model's own autoencoder decodes it, in a
few milliseconds. FLUX's would take seconds, so there a linear map from latents to colours stands in: fitted once, by
least squares, to what the loaded autoencoder makes of smooth random latents. Such a map gives a picture an eighth as
large, without fine structure, and its colours.
"""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from allaprima.engine.pipeline import Canvas, Pipeline, Pixels, to_pixels
from allaprima.flux import CancelCheck
from allaprima.flux.latents import unpack

#: Longest side of a preview in pixels.
MAX_SIDE_PX = 320
JPEG_QUALITY = 80
#: Side of the random latents of the fit, and of their grain, in latent pixels.
FIT_SIDE, FIT_GRAIN = 32, 4
FIT_SEED = 0


class Previewer:
    """Makes previews of one model's canvases."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._model = pipeline.model
        #: (z_channels + 1, 3); made when it is first needed.
        self._map: Tensor | None = None

    def pictures(self, canvas: Canvas, check: CancelCheck) -> list[Pixels]:
        """Return one small picture per image: (Y, X, 3), uint8."""
        config = self._model.config
        shown = []
        for guess in canvas.guesses:
            z = unpack(guess, canvas.rows, canvas.columns)
            picture = self._decode(z, check) if config.native_tokens else self._project(z, check)
            shown.append(_shrunk(to_pixels(picture)))
        return shown

    def _decode(self, z: Tensor, check: CancelCheck) -> Tensor:
        autoencoder = self._model.networks.autoencoder
        picture: Tensor = autoencoder.decode(z.to(autoencoder.decoder.conv_in.weight.dtype), check)
        return picture.nan_to_num()

    def _project(self, z: Tensor, check: CancelCheck) -> Tensor:
        """(1, C, Y, X) -> (1, 3, Y, X), about [-1, 1]."""
        if self._map is None:
            self._map = self._fit(z.shape[1], z.device, check)
        colours = torch.einsum("bcyx,cd->bdyx", z.float(), self._map[:-1]) + self._map[-1][:, None, None]
        return colours.nan_to_num()

    def _fit(self, channels: int, device: torch.device, check: CancelCheck) -> Tensor:
        """Return the affine map from latents to colours that is nearest to the decoder."""
        generator = torch.Generator().manual_seed(FIT_SEED)
        coarse = torch.randn(1, channels, FIT_SIDE // FIT_GRAIN, FIT_SIDE // FIT_GRAIN, generator=generator)
        z = nn.functional.interpolate(coarse, size=(FIT_SIDE, FIT_SIDE), mode="bilinear").to(device)
        picture = self._decode(z, check).float()
        colours = nn.functional.adaptive_avg_pool2d(picture, FIT_SIDE)[0].flatten(1).T  # (Y X, 3)
        inputs = nn.functional.pad(z[0].flatten(1).T, (0, 1), value=1.0)  # (Y X, C + 1)
        # On the CPU in double precision: a system of this size is solved before it could be sent anywhere.
        solution: Tensor = torch.linalg.lstsq(inputs.double().cpu(), colours.double().cpu()).solution
        return solution.float().to(device)


def _shrunk(pixels: Pixels) -> Pixels:
    longest = max(pixels.shape[:2])
    if longest <= MAX_SIDE_PX:
        return pixels
    height, width = (max(1, round(side * MAX_SIDE_PX / longest)) for side in pixels.shape[:2])
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def encode_preview(pixels: Pixels) -> bytes:
    """Return a preview's file: a JPEG without any metadata."""
    with BytesIO() as file:
        Image.fromarray(pixels).save(file, format="JPEG", quality=JPEG_QUALITY)
        return file.getvalue()
