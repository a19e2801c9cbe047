"""Paint what the built-in model is held to, `tests/engine/golden/prompts.txt`, when its weights change."""

from pathlib import Path

from PIL import Image

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder

FOLDER = Path("tests/engine/golden")
#: Side in pixels of what is painted, and of what is kept of it.
PAINTED, KEPT = 512, 128


def main() -> None:
    """Write one picture a line, named by its number; the seed is that number too."""
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    for number, prompt in enumerate((FOLDER / "prompts.txt").read_text().splitlines()):
        (pixels,) = pipeline.paint(
            GenerationRequest(prompt=prompt, seed=number, model=SKETCH_ID, width=PAINTED, height=PAINTED)
        )
        picture = Image.fromarray(pixels).resize((KEPT, KEPT), Image.Resampling.BOX)
        picture.save(FOLDER / f"{number}.png", optimize=True)
        print(FOLDER / f"{number}.png", prompt)


if __name__ == "__main__":
    main()
