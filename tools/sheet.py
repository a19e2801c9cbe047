"""Paint the README's picture grid with the built-in model: fixed prompts, seed 0 each, none chosen after the fact."""

from pathlib import Path

from PIL import Image, ImageDraw

from allaprima.engine.pipeline import Pipeline
from allaprima.request import ImageRequest
from allaprima.weights.catalog import SKETCH_ID, sketch_folder
from allaprima.weights.model import open_model

PROMPTS = (
    "a t-rex on a beach wearing sunglasses",
    "a red apple, blue background",
    "a rocket at night",
    "a penguin in the snow",
    "a cat in a meadow",
    "a palm tree in the desert",
    "a sailboat on the sea",
    "a pizza, yellow background",
    "a fox in the forest",
    "a unicorn at sunset",
    "a dog next to a cat in a meadow",
    "a house and a pine tree in the snow",
)
SIDE, COLUMNS, CAPTION = 256, 4, 22


def main() -> None:
    """Write docs/images/sheet.png."""
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    rows = -(-len(PROMPTS) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * (SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, prompt in enumerate(PROMPTS):
        x, y = place % COLUMNS * SIDE, place // COLUMNS * (SIDE + CAPTION)
        sheet.paste(paint(pipeline, prompt), (x, y))
        draw.text((x + 6, y + SIDE + 5), prompt, fill="black")
    path = Path("docs/images/sheet.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
    print(path)


def paint(pipeline: Pipeline, prompt: str) -> Image.Image:
    """Return one picture of the prompt, seed 0."""
    (pixels,) = pipeline.paint(ImageRequest(prompt=prompt, seed=0, model=SKETCH_ID, width=2 * SIDE, height=2 * SIDE))
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
