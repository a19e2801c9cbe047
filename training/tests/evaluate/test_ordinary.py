"""The ordinary prompts: their number, and that no image is empty."""

import pytest

from allaprima.domain.generation import GenerationRequest
from allaprima.domain.models import SKETCH_ID
from allaprima.engine.pipeline import Pipeline
from allaprima.weights.open import open_model
from allaprima.weights.paths import sketch_folder
from allaprima.weights.prompts.lexicon import LEXICON_FILE, Lexicon
from allaprima.weights.prompts.reader import open_reader
from training.evaluate.evaluator import load_evaluator
from training.evaluate.ordinary import judge, ordinary_prompts
from training.evaluate.word_pairs import TARGET, draw, verdicts

#: Prompts of which today's captions have no thing, or none of the words.
PROMPTS = [
    "a cozy cabin in a snowy forest at night", "portrait of an old fisherman", "a bowl of ramen with egg",
    "watercolor painting of a lighthouse", "isometric illustration of a small office", "masterpiece, 8k",
    "photo of a mountain lake with reflections", "a beautiful sunset over the ocean", "a yellow banana", "hope",
    "1girl, solo, long hair", "a melting ice cream cone on hot asphalt",
]  # fmt: skip


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(open_model(sketch_folder()).load(), "cpu")


def test_there_are_200_ordinary_prompts():
    prompts = ordinary_prompts()
    assert len({prompt.text for prompt in prompts}) == 200
    assert all(prompt.noun for prompt in prompts)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_no_image_is_empty(pipeline, prompt):
    request = GenerationRequest(prompt=prompt, seed=0, model=SKETCH_ID, width=512, height=512)
    assert load_evaluator().detect(pipeline.generate(request)[0]).objects


def test_main_noun_of_most_prompts_is_read_and_every_other_is_named():
    reader = open_reader(sketch_folder())
    everything = type("Everything", (), {"background": "", "objects": ()})()
    judged = [judge(prompt, reader, everything) for prompt in ordinary_prompts()]
    read = [one.target in {*one.reading.things, *one.reading.places} for one in judged]
    assert sum(read) >= 0.6 * len(judged)
    assert sum(is_read or one.is_named for is_read, one in zip(read, judged, strict=True)) >= 0.95 * len(judged)


def test_most_drawn_pairs_are_sensible():
    pairs, known = draw(Lexicon(sketch_folder() / LEXICON_FILE)), verdicts()
    assert set(pairs) == set(known)
    assert sum(known.values()) >= TARGET * len(pairs)
