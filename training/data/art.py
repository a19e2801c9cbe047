"""Images of the objects: flat vector art by Microsoft (MIT), rasterised in any size and colour variant.

The art is the npm package `PACKAGE`. `npm pack` downloads it once, to a folder that the caller chooses. It is not part
of allaprima's packages.
"""

import colorsys
import io
import json
import re
import subprocess
import tarfile
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

#: Microsoft's Fluent emoji, flat style, as packed by Iconify. MIT.
PACKAGE = "@iconify-json/fluent-emoji-flat@1.2.6"
TARBALL = "iconify-json-fluent-emoji-flat-1.2.6.tgz"

#: The colour variants: hue in degrees, saturation (0 to 1) and value (0 to 1) of the object's main tone.
COLOUR_VARIANTS: dict[str, tuple[float, float, float]] = {
    "red": (358, 0.82, 0.92),
    "orange": (27, 0.85, 0.98),
    "yellow": (48, 0.78, 0.99),
    "green": (130, 0.72, 0.72),
    "blue": (212, 0.82, 0.92),
    "purple": (272, 0.6, 0.76),
    "pink": (332, 0.45, 0.99),
    "black": (250, 0.2, 0.2),
}

#: A tone is recoloured like the main tone if its hue differs by at most `HUE_REACH` degrees and its saturation is at
#: least `LEAST_SATURATION`.
HUE_REACH, LEAST_SATURATION = 44.0, 0.25
#: Side in pixels of the raster from which the main tone of an icon is determined.
TONE_PX = 48

_HEX = re.compile(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")


class Art:
    """Rasterises the icons of the art package on demand and caches the results."""

    def __init__(self, folder: Path) -> None:
        """folder: the folder of the package's tarball. npm downloads the tarball if it is missing."""
        self.folder = folder
        package = json.loads(_member(folder, "package/icons.json"))
        self._icons: dict[str, dict[str, str]] = package["icons"]
        self._box = f"0 0 {package['width']} {package['height']}"

    def sprite(self, icon: str, px: int, variant: str | None = None) -> NDArray[np.float32]:
        """Return an icon as RGBA, (px, px, 4), float32 in [0, 1], with premultiplied alpha.

        variant: a name in `COLOUR_VARIANTS`, whose tone replaces the main tone and its shades; None: the usual colour.
        """
        return _premultiplied(self._levels(icon, px, variant))

    # The cache stores uint8, so that most sprites fit. Rasterising takes ten times as long as the conversion to float.
    @lru_cache(maxsize=3000)  # noqa: B019 - the process has one Art, which is never freed
    def _levels(self, icon: str, px: int, variant: str | None) -> NDArray[np.uint8]:
        body = self._icons[icon]["body"]
        if variant is not None:
            body = _recoloured(body, self._main_tone(icon), variant)
        return self._raster(body, px)

    def _raster(self, body: str, px: int) -> NDArray[np.uint8]:
        """Rasterise an SVG body: RGBA, (px, px, 4), uint8, without premultiplied alpha."""
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{self._box}">{body}</svg>'
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=px, height=px))
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))

    @cache  # noqa: B019 - as above
    def _main_tone(self, icon: str) -> tuple[float, float, float]:
        """Return hue in degrees, saturation and value of the most frequent saturated tone of an icon."""
        pixels = _premultiplied(self._levels(icon, TONE_PX, None)).reshape(-1, 4)
        solid = pixels[pixels[:, 3] > 0.99, :3]
        tones = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in solid.tolist()])
        tones = tones[tones[:, 1] > LEAST_SATURATION]
        hues, counts = np.unique(np.round(tones, 2), axis=0, return_counts=True)
        hue, saturation, value = hues[counts.argmax()].tolist()
        return 360 * hue, saturation, value


def _premultiplied(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    rgba = levels.astype(np.float32) / np.float32(255)
    rgba[..., :3] *= rgba[..., 3:]
    return rgba


def _member(folder: Path, name: str) -> bytes:
    tarball = folder / TARBALL
    if not tarball.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(tarball) as archive:
        member = archive.extractfile(name)
        assert member is not None, f"{TARBALL} has no file {name}"
        return member.read()


def _recoloured(body: str, main: tuple[float, float, float], variant: str) -> str:
    """Return an icon's SVG with the main tone and its shades in a colour variant."""
    main_hue, main_saturation, main_value = main
    hue, saturation, value = COLOUR_VARIANTS[variant]

    def recoloured(match: re.Match[str]) -> str:
        digits = match[1] if len(match[1]) == 6 else "".join(2 * digit for digit in match[1])
        h, s, v = colorsys.rgb_to_hsv(*(int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)))
        difference = (360 * h - main_hue + 180) % 360 - 180
        if abs(difference) > HUE_REACH or s < LEAST_SATURATION:
            return match[0]
        s, v = min(1.0, s / main_saturation * saturation), min(1.0, v / main_value * value)
        rgb = colorsys.hsv_to_rgb(((hue + 0.2 * difference) % 360) / 360, s, v)
        return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)

    return _HEX.sub(recoloured, body)
