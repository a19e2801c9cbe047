"""`python -m training.data.samples`: draw a contact sheet of scenes with their captions."""

import argparse
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from training.data.art import Art
from training.data.captions import caption
from training.data.scenes import SIZES, compose, draw_pixels

#: Number of images on the sheet and in a row; the longer side of an image and the height of its caption, in pixels.
COUNT, COLUMNS, SIDE, CAPTION = 48, 8, 192, 44


def sample_sheet(art: Art, first: int = 0) -> Image.Image:
    """Return a contact sheet of scenes on canvases of all sizes. first: the seed of the first scene."""
    sheet = Image.new("RGB", (COLUMNS * SIDE, COUNT // COLUMNS * (SIDE + CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    rng = np.random.default_rng(first)
    for i, size in enumerate(rng.choice(list(SIZES), COUNT, p=list(SIZES.values()))):
        width, height = (round(SIDE * side / max(size)) for side in size)
        scene = compose(first + i, width, height)
        x, y = i % COLUMNS * SIDE, i // COLUMNS * (SIDE + CAPTION)
        sheet.paste(Image.fromarray(draw_pixels(scene, art)), (x, y))
        words = "\n".join(textwrap.wrap(caption(scene, rng), 30)[:3])
        pen.multiline_text((x + 2, y + SIDE + 2), words, fill="black", spacing=1)
    return sheet


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(prog="python -m training.data.samples", description=__doc__)
    parser.add_argument("--art", type=Path, default=Path("build/art"), help="folder of the art package")
    parser.add_argument("--out", type=Path, default=Path("build/samples.png"))
    parser.add_argument("--first", type=int, default=0, help="seed of the first scene")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sample_sheet(Art(options.art), options.first).save(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
