"""Write the golden images of `tests/engine/golden/prompts.txt`. Run it when the built-in model's weights change."""

from pathlib import Path

from PIL import Image

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder

FOLDER = Path("tests/engine/golden")
#: Side in pixels of the generated images, and of the golden ones that they are reduced to.
SIDE, GOLDEN_SIDE = 512, 128


def main() -> None:
    """Write one image per line of prompts, named by the line's number, which is also the seed."""
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    for number, prompt in enumerate((FOLDER / "prompts.txt").read_text().splitlines()):
        (pixels,) = pipeline.generate(
            GenerationRequest(prompt=prompt, seed=number, model=SKETCH_ID, width=SIDE, height=SIDE)
        )
        image = Image.fromarray(pixels).resize((GOLDEN_SIDE, GOLDEN_SIDE), Image.Resampling.BOX)
        image.save(FOLDER / f"{number}.png", optimize=True)
        print(FOLDER / f"{number}.png", prompt)


if __name__ == "__main__":
    main()
