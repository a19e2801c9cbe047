"""Preview images of a running request, rendered between two denoising steps in a fraction of a step's time.

A preview shows the noise-free latents that the last step predicted. The built-in model's autoencoder decodes them in a
few milliseconds. FLUX's autoencoder would take seconds, so previews of FLUX use a linear projection of the latents to
RGB instead. It is fitted once, by least squares, to the loaded autoencoder's output for smooth random latents. Its
image has an eighth of the height and width, the right colours, and no fine structure.

Dimension key: B batch, C latent channels, Y rows and X columns of latent pixels.
"""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from allaprima.engine.init_latents import LatentState
from allaprima.engine.pipeline import Pipeline, Pixels, to_pixels
from allaprima.flux import CancelCheck
from allaprima.flux.latents import unpack

#: Longest side of a preview in pixels.
MAX_SIDE_PX = 320
JPEG_QUALITY = 80
#: Side of the random latents for the fit, and side of one cell of the coarse noise that is interpolated to them, both
#: in latent pixels.
FIT_SIDE, FIT_GRAIN = 32, 4
FIT_SEED = 0


class Previewer:
    """Renders previews of one model's latents."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._model = pipeline.model
        #: The projection from C latent channels to RGB, (C + 1, 3) float32; the last row is the offset. None until the
        #: first preview.
        self._projection: Tensor | None = None

    def render(self, state: LatentState, check: CancelCheck) -> list[Pixels]:
        """Return one preview per image of the request, at most `MAX_SIDE_PX` pixels wide and high.

        Raises any exception of `check`.
        """
        config = self._model.config
        previews = []
        for predicted in state.x0_pred:
            z = unpack(predicted, state.rows, state.columns)
            image = self._decode(z, check) if config.native_tokens else self._project(z, check)
            previews.append(_shrink(to_pixels(image)))
        return previews

    def _decode(self, z: Tensor, check: CancelCheck) -> Tensor:
        autoencoder = self._model.networks.autoencoder
        image: Tensor = autoencoder.decode(z.to(autoencoder.decoder.conv_in.weight.dtype), check)
        return image.nan_to_num()

    def _project(self, z: Tensor, check: CancelCheck) -> Tensor:
        """Project latents (B, C, Y, X) to RGB (B, 3, Y, X), float32, mostly in [-1, 1]."""
        if self._projection is None:
            self._projection = self._fit_projection(z.shape[1], z.device, check)
        weight, offset = self._projection[:-1], self._projection[-1]
        colours = torch.einsum("bcyx,cd->bdyx", z.float(), weight) + offset[:, None, None]
        return colours.nan_to_num()

    def _fit_projection(self, channels: int, device: torch.device, check: CancelCheck) -> Tensor:
        """Return the affine map from latents to RGB that fits the decoder best: (C + 1, 3), float32."""
        generator = torch.Generator().manual_seed(FIT_SEED)
        coarse = torch.randn(1, channels, FIT_SIDE // FIT_GRAIN, FIT_SIDE // FIT_GRAIN, generator=generator)
        z = nn.functional.interpolate(coarse, size=(FIT_SIDE, FIT_SIDE), mode="bilinear").to(device)
        image = self._decode(z, check).float()
        colours = nn.functional.adaptive_avg_pool2d(image, FIT_SIDE)[0].flatten(1).T  # (Y X, 3)
        inputs = nn.functional.pad(z[0].flatten(1).T, (0, 1), value=1.0)  # (Y X, C + 1)
        # Solved on the CPU in float64: the system is too small for a GPU to be faster.
        solution: Tensor = torch.linalg.lstsq(inputs.double().cpu(), colours.double().cpu()).solution
        return solution.float().to(device)


def _shrink(pixels: Pixels) -> Pixels:
    longest = max(pixels.shape[:2])
    if longest <= MAX_SIDE_PX:
        return pixels
    height, width = (max(1, round(side * MAX_SIDE_PX / longest)) for side in pixels.shape[:2])
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def encode_preview(pixels: Pixels) -> bytes:
    """Return a preview as a JPEG file without metadata. pixels: (H, W, 3), uint8, RGB."""
    with BytesIO() as file:
        Image.fromarray(pixels).save(file, format="JPEG", quality=JPEG_QUALITY)
        return file.getvalue()
