"""Paint the README's grid and the model card's sheet with the built-in model: prompts chosen by number, seed 0 each.

The grid is the seed page's prompt and every 80th of the suite's; the sheet is every 14th of them.
None is chosen by its picture.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from training.suite import asks

FIRST = "A T-Rex relaxing on a beach, lying on a sun lounger and wearing sunglasses."
FOLDER = Path("docs/images")
#: Side in pixels of what is painted.
PAINTED = 768


@dataclass(frozen=True, slots=True)
class Layout:
    """Pictures in rows, each above its prompt."""

    columns: int
    #: Side in pixels of a picture.
    side: int
    #: Points of the font, lines of a prompt and letters of a line.
    font: int
    lines: int
    letters: int

    @property
    def caption(self) -> int:
        """Height in pixels of what stands below a picture."""
        return self.lines * (self.font + 3) + 8


GRID = Layout(columns=4, side=288, font=12, lines=2, letters=46)
SHEET = Layout(columns=8, side=216, font=11, lines=2, letters=36)


def main() -> None:
    """Write docs/images/grid.webp and docs/images/sheet.webp."""
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    prompts = [ask.text for ask in asks()]
    for name, layout, chosen in (
        ("grid.webp", GRID, [FIRST, *prompts[::80][:11]]),
        ("sheet.webp", SHEET, prompts[::14][:64]),
    ):
        path = FOLDER / name
        sheet(pipeline, layout, chosen).save(path, quality=90, method=6)
        print(path)


def sheet(pipeline: Pipeline, layout: Layout, prompts: Sequence[str]) -> Image.Image:
    """Return pictures of the prompts with the prompts below them."""
    down = layout.side + layout.caption
    whole = Image.new("RGB", (layout.columns * layout.side, -(-len(prompts) // layout.columns) * down), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(layout.font)
    for place, prompt in enumerate(prompts):
        x, y = place % layout.columns * layout.side, place // layout.columns * down
        whole.paste(paint(pipeline, prompt, layout.side), (x, y))
        lines = textwrap.wrap(prompt, layout.letters)
        assert len(lines) <= layout.lines, prompt
        for number, line in enumerate(lines):
            draw.text((x + 5, y + layout.side + 4 + number * (layout.font + 3)), line, fill="black", font=font)
    return whole


def paint(pipeline: Pipeline, prompt: str, side: int) -> Image.Image:
    """Return one picture of the prompt, seed 0."""
    (pixels,) = pipeline.generate(
        GenerationRequest(prompt=prompt, seed=0, model=SKETCH_ID, width=PAINTED, height=PAINTED)
    )
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
