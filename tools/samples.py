"""Generate the images next to the playground's key field with the built-in model, from the prompts in `samples.js`."""

import re

from PIL import Image

from allaprima.api.web.routes import PLAYGROUND_FOLDER
from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder

FOLDER = PLAYGROUND_FOLDER / "samples"
#: Sides in pixels of the generated images and of the files.
GENERATED_PX, FILE_PX = 768, 256
PROMPT = re.compile(r'^  (\w+): "([^"]+)",$', re.MULTILINE)


def main() -> None:
    """Write a WebP file for each prompt, with seed 0."""
    FOLDER.mkdir(exist_ok=True)
    pipeline = Pipeline(open_model(sketch_folder()).load(), "cpu")
    for name, prompt in PROMPT.findall((PLAYGROUND_FOLDER / "js" / "samples.js").read_text()):
        (pixels,) = pipeline.generate(
            GenerationRequest(prompt=prompt, seed=0, model=SKETCH_ID, width=GENERATED_PX, height=GENERATED_PX)
        )
        path = FOLDER / f"{name}.webp"
        image = Image.fromarray(pixels).resize((FILE_PX, FILE_PX), Image.Resampling.LANCZOS)
        image.save(path, quality=80, method=6)
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
