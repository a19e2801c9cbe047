"""`python -m training.evaluate.ordinary`: print what the built-in model makes of 200 ordinary prompts.

`ordinary_prompts.txt` has the prompts with their main noun. They were written by hand, in words that most captions do
not have. A prompt is right if the evaluator detects its main noun in the image: itself, or the thing or the place that
a warning names for it. An image is empty if the evaluator detects no thing in it.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.prompts.reader import PromptReader, PromptReading, open_reader
from training.data.objects import OBJECTS
from training.evaluate.evaluator import Detections, load_evaluator

#: Side in pixels of generated images, and of an image in the contact sheet.
IMAGE_PX, SHEET_PX = 512, 128
#: Shares that the prompts should reach: the main noun is shown; it is shown or named in a warning.
SHOWN_TARGET, EXPLAINED_TARGET = 0.60, 0.95


@dataclass(frozen=True, slots=True)
class OrdinaryPrompt:
    """A prompt and its main noun."""

    noun: str
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a prompt."""

    prompt: OrdinaryPrompt
    reading: PromptReading
    #: The thing or the place as which the main noun is read; None: it has no neighbour.
    target: str | None
    #: Whether the main noun or its neighbour is in the image, and whether a warning names the noun.
    is_shown: bool
    is_named: bool
    is_empty: bool


def ordinary_prompts(name: str = "ordinary_prompts.txt") -> list[OrdinaryPrompt]:
    """Return the prompts of a file in this folder."""
    lines = (files("training.evaluate") / name).read_text("utf-8").splitlines()
    return [OrdinaryPrompt(*(part.strip() for part in line.split(" | ", 1))) for line in lines]


def judge(prompt: OrdinaryPrompt, reader: PromptReader, detections: Detections) -> Verdict:
    """Return the verdict on the image of a prompt."""
    reading = reader.read(prompt.text)
    target = _target(prompt.noun, reader)
    is_named = any(_has_word(warning, prompt.noun) for warning in reading.warnings)
    is_detected = target in {*_things(detections), detections.background}
    is_read = any(part in word.split() for word, _ in reading.read_as for part in prompt.noun.split())
    is_shown = target in {*reading.things, *reading.places} and is_detected and (is_named or not is_read)
    return Verdict(prompt, reading, target, is_shown, is_named, not detections.objects)


def _target(noun: str, reader: PromptReader) -> str | None:
    """Return the thing or the place as which a noun is read, or None."""
    alone = reader.read(noun)
    if alone.warnings and alone.warnings[0].startswith("the model knows no thing"):
        is_known = not any("does not know" in warning for warning in alone.warnings)
        return alone.places[0] if is_known else None
    return alone.things[0]


def _things(detections: Detections) -> Iterator[str]:
    names = {obj.icon: obj.wordings[0] for obj in OBJECTS}
    return (names[found.icon] for found in detections.objects)


def _has_word(warning: str, noun: str) -> bool:
    """Whether a warning has a word of a noun."""
    return any(part in warning.lower() for part in noun.lower().split())


def print_table(verdicts: Sequence[Verdict]) -> None:
    """Print a line per prompt and the shares."""
    for one in verdicts:
        marks = "shown" if one.is_shown else "named" if one.is_named else "LOST"
        empty = "EMPTY" if one.is_empty else ""
        print(f"{marks:6}{empty:6}{one.prompt.noun:18}{one.target or '-':14}{one.prompt.text}")
        print(f"{'':44}= {one.reading.caption}")
    count = len(verdicts)
    shown = sum(one.is_shown for one in verdicts) / count
    explained = sum(one.is_shown or one.is_named for one in verdicts) / count
    print(f"{count} prompts")
    print(f"main noun shown as itself or as a named neighbour: {shown:.1%}, target {SHOWN_TARGET:.0%}")
    print(f"that, or a warning names it: {explained:.1%}, target {EXPLAINED_TARGET:.0%}")
    print(f"empty images: {sum(one.is_empty for one in verdicts)}")


def save_sheet(path: Path, images: Sequence[NDArray[np.uint8]], columns: int = 10) -> None:
    """Save the images in one, in rows."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * SHEET_PX, rows * SHEET_PX))
    for i, image in enumerate(images):
        small = Image.fromarray(image).resize((SHEET_PX, SHEET_PX))
        sheet.paste(small, (i % columns * SHEET_PX, i // columns * SHEET_PX))
    sheet.save(path)


def main() -> None:
    """Generate an image for each prompt and print the table."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate.ordinary", description=__doc__)
    parser.add_argument("--model", type=Path, default=sketch_folder(), help="model folder")
    parser.add_argument("--prompts", default="ordinary_prompts.txt", help="file of prompts in training/evaluate")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="PNG file for all images")
    options = parser.parse_args()
    reader = open_reader(options.model)
    assert reader is not None, f"{options.model} has no lexicon"
    prompts, detect = ordinary_prompts(options.prompts), load_evaluator().detect
    generate = _generator(Pipeline(open_model(options.model).load(), "cpu"), options.steps, options.seed)
    images = [generate(prompt.text) for prompt in prompts]
    print_table([judge(prompt, reader, detect(image)) for prompt, image in zip(prompts, images, strict=True)])
    if options.sheet is not None:
        save_sheet(options.sheet, images)


def _generator(pipeline: Pipeline, steps: int, seed: int) -> Callable[[str], NDArray[np.uint8]]:
    def generate(prompt: str) -> NDArray[np.uint8]:
        return pipeline.generate(
            GenerationRequest(prompt=prompt, seed=seed, model=SKETCH_ID, width=IMAGE_PX, height=IMAGE_PX, steps=steps)
        )[0]

    return generate


if __name__ == "__main__":
    main()
