"""Generate the README's grid and the model card's sheet with the built-in model, all with seed 0.

The grid has the README's example prompt and every 80th prompt of the benchmark; the sheet has every 14th, so no image
is selected for its quality.
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
from training.evaluate.benchmark import benchmark_prompts

EXAMPLE = "A T-Rex relaxing on a beach, lying on a sun lounger and wearing sunglasses."
FOLDER = Path("docs/images")
#: Side in pixels of the generated images.
GENERATED_PX = 768


@dataclass(frozen=True, slots=True)
class Layout:
    """Images in rows, each above its prompt."""

    columns: int
    #: Side of an image in pixels.
    side: int
    #: Font size, lines of a prompt, and characters of a line.
    font: int
    lines: int
    characters: int

    @property
    def caption(self) -> int:
        """Height in pixels of the prompt below an image."""
        return self.lines * (self.font + 3) + 8


GRID = Layout(columns=4, side=288, font=12, lines=2, characters=46)
SHEET = Layout(columns=8, side=216, font=11, lines=2, characters=36)


def main() -> None:
    """Write docs/images/grid.webp and docs/images/sheet.webp."""
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    prompts = [prompt.text for prompt in benchmark_prompts()]
    for name, layout, chosen in (
        ("grid.webp", GRID, [EXAMPLE, *prompts[::80][:11]]),
        ("sheet.webp", SHEET, prompts[::14][:64]),
    ):
        path = FOLDER / name
        sheet(pipeline, layout, chosen).save(path, quality=90, method=6)
        print(path)


def sheet(pipeline: Pipeline, layout: Layout, prompts: Sequence[str]) -> Image.Image:
    """Return the images of several prompts in rows, with the prompts below them."""
    down = layout.side + layout.caption
    whole = Image.new("RGB", (layout.columns * layout.side, -(-len(prompts) // layout.columns) * down), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(layout.font)
    for i, prompt in enumerate(prompts):
        x, y = i % layout.columns * layout.side, i // layout.columns * down
        whole.paste(generate(pipeline, prompt, layout.side), (x, y))
        lines = textwrap.wrap(prompt, layout.characters)
        assert len(lines) <= layout.lines, prompt
        for number, line in enumerate(lines):
            draw.text((x + 5, y + layout.side + 4 + number * (layout.font + 3)), line, fill="black", font=font)
    return whole


def generate(pipeline: Pipeline, prompt: str, side: int) -> Image.Image:
    """Return an image of a prompt with seed 0, scaled to a side in pixels."""
    (pixels,) = pipeline.generate(
        GenerationRequest(prompt=prompt, seed=0, model=SKETCH_ID, width=GENERATED_PX, height=GENERATED_PX)
    )
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
