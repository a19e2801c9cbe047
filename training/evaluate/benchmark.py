"""The benchmark: prompts by category, after GenEval (Ghosh et al. 2023, 2310.11513), and the check of an image.

Most prompts are generated from templates that no caption uses. Most words that only the templates have are not in the
model's vocabulary, and its tokenizer drops them, so the encoders' input can equal that of a caption. The templates
therefore mainly measure that unknown words do not change the image. The prompts in `prompts.txt` measure free wordings;
they were written by hand before the first model was trained.

An image is right if the objects and the background that `evaluator` detects in it match the prompt.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.art import COLOUR_VARIANTS
from training.data.backgrounds import BACKGROUNDS, SCENIC
from training.data.captions import background_words
from training.data.held_out import is_held_out
from training.data.objects import BY_ICON, OBJECTS, ObjectClass, article, plural
from training.data.scenes import Relation, Subject
from training.evaluate.evaluator import DetectedObject, Detections

#: A function that returns a square image, uint8 (H, W, 3), for a prompt and a seed.
Generate = Callable[[str, int], NDArray[np.uint8]]

#: Number of prompts per category of generated prompts.
PER_CATEGORY = 102
#: Categories whose mean is the overall score.
CATEGORIES = ("single thing", "two things", "background", "counting", "position", "colour")
#: Further categories: held-out combinations, seen combinations in the same wordings, and the prompts written by hand.
HELD_OUT, SEEN, HAND_WRITTEN = "held-out combinations", "seen combinations", "by hand"
ALL_CATEGORIES = (*CATEGORIES, HELD_OUT, SEEN, HAND_WRITTEN)


@dataclass(frozen=True, slots=True)
class BenchmarkPrompt:
    """A prompt and the required content of its image."""

    category: str
    text: str
    background: str
    subjects: tuple[Subject, ...]
    relation: Relation | None = None
    #: Whether the background, and whether the objects, must match for the image to be right.
    checks_background: bool = False
    checks_objects: bool = True


# Verdicts -------------------------------------------------------------------------------------------------------


def is_right(prompt: BenchmarkPrompt, detections: Detections) -> bool:
    """Whether the detections match the prompt: the background, the number of objects of each class, colours, relation.

    An object's colour is checked if the prompt names one.
    """
    if prompt.checks_background and detections.background != prompt.background:
        return False
    if not prompt.checks_objects:
        return True
    found = [_matches(subject, detections) for subject in prompt.subjects]
    if any(len(objects) != subject.count for subject, objects in zip(prompt.subjects, found, strict=True)):
        return False
    return prompt.relation in (None, "with") or _relation_holds(str(prompt.relation), found[0][0], found[1][0])


def _matches(subject: Subject, detections: Detections) -> list[DetectedObject]:
    """Return the detected objects of the subject's class; an empty list if one has another colour than the subject."""
    same_class = [obj for obj in detections.objects if obj.icon == subject.icon]
    # The evaluator can detect the usual colour as None or as the variant of that colour.
    usual = BY_ICON[subject.icon].colour
    if subject.variant is not None and any((obj.variant or usual) != subject.variant for obj in same_class):
        return []
    return same_class


def _relation_holds(relation: str, first: DetectedObject, second: DetectedObject) -> bool:
    across, down = second.x - first.x, second.y - first.y
    if relation == "left":
        return across > abs(down)
    if relation == "above":
        return down > abs(across)
    # "front": the first object is lower than the second and overlaps it. With a larger distance it is below the second.
    return -0.4 < down < 0 and abs(across) < 0.35


# Prompts --------------------------------------------------------------------------------------------------------

_SINGLE = ("My daughter would like {a}, {ground}.", "Just {a}, please; {ground}", "Make me {a} {ground}!",
           "{ground}: {a}, flat vector art", "We want to see {a} somewhere {ground}")  # fmt: skip
_TWO = ("Could you put {a} together with {b}, {ground}?", "{a} plus {b}, {ground}", "{a}, and also {b}, {ground}",
        "Both {a} and {b} appear {ground}.")  # fmt: skip
_COUNTING = ("Exactly {many}, {ground}", "{many}, no more and no less, {ground}.", "Please give me {many} {ground}",
             "{ground} we can count {many}.")  # fmt: skip
_COLOUR = ("{a} that someone has painted, {ground}", "What about {a}, {ground}?", "My favourite is {a}, {ground}.",
           "{ground}, {a} all by itself")  # fmt: skip
_POSITION: dict[Relation, tuple[str, ...]] = {
    "left": ("{a} stands left of {b}, {ground}", "{ground}: {a} is found to the left of {b}",
             "{b} is to the right of {a}, {ground}"),
    "above": ("{a} hovers above {b}, {ground}", "{b} is just below {a}, {ground}", "{ground}, {a} is seen above {b}"),
    "front": ("{a} can be seen in front of {b}, {ground}", "{b} hides behind {a}, {ground}"),
}  # fmt: skip
_NUMBERS = {2: "two", 3: "three", 4: "four"}


@cache
def benchmark_prompts() -> tuple[BenchmarkPrompt, ...]:
    """Return the fixed prompts of the benchmark: `PER_CATEGORY` per category, and those written by hand."""
    rng = np.random.default_rng(2026)
    makers: dict[str, Callable[[Generator], BenchmarkPrompt]] = {
        "single thing": _single_prompt,
        "two things": _pair_prompt,
        "background": _background_prompt,
        "counting": _counting_prompt,
        "position": _position_prompt,
        "colour": _colour_prompt,
    }
    prompts = [prompt for category in CATEGORIES for prompt in _distinct(makers[category], rng, held_out=False)]
    kinds = (_combined_prompt, _one_colour_prompt, _pair_prompt)
    for category, held_out in ((HELD_OUT, True), (SEEN, False)):
        for maker in kinds:
            third = _distinct(maker, rng, held_out=held_out, count=PER_CATEGORY // len(kinds))
            prompts += [replace(prompt, category=category) for prompt in third]
    return (*prompts, *_hand_written())


def _distinct(
    maker: Callable[[Generator], BenchmarkPrompt], rng: Generator, *, held_out: bool, count: int = PER_CATEGORY
) -> list[BenchmarkPrompt]:
    """Return `count` prompts with different texts. If `held_out`, all have a held-out combination, otherwise none."""
    chosen: dict[str, BenchmarkPrompt] = {}
    while len(chosen) < count:
        prompt = maker(rng)
        if is_held_out(prompt.subjects, prompt.background) == held_out:
            chosen[prompt.text] = prompt
    return list(chosen.values())


def _hand_written() -> Iterator[BenchmarkPrompt]:
    lines = (files("training.evaluate") / "prompts.txt").read_text("utf-8").splitlines()
    for line in lines:
        background, icon, text = (part.strip() for part in line.split("|"))
        yield BenchmarkPrompt(HAND_WRITTEN, text, background, (Subject(icon),), checks_background=True)


def _pick(rng: Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _object_class(rng: Generator, choices: Sequence[ObjectClass] = OBJECTS) -> ObjectClass:
    return choices[int(rng.integers(len(choices)))]


def _background(rng: Generator) -> tuple[str, str]:
    """Return a random background and its phrase; scenic and plain backgrounds have equal probability."""
    is_scenic = rng.random() < 0.5
    name = _pick(rng, [name for name in BACKGROUNDS if (name in SCENIC) == is_scenic])
    return name, background_words(name)[0]


def _with_article(subject: Subject) -> str:
    name = BY_ICON[subject.icon].wordings[0]
    if subject.variant is not None:
        name = f"{subject.variant} {name}"
    if not BY_ICON[subject.icon].counts:
        return name
    return f"{article(name)} {name}"


def _single_prompt(rng: Generator) -> BenchmarkPrompt:
    subject, (background, ground) = Subject(_object_class(rng).icon), _background(rng)
    text = _pick(rng, _SINGLE).format(a=_with_article(subject), ground=ground)
    return BenchmarkPrompt("single thing", text, background, (subject,))


def _background_prompt(rng: Generator) -> BenchmarkPrompt:
    return replace(_single_prompt(rng), category="background", checks_background=True, checks_objects=False)


def _combined_prompt(rng: Generator) -> BenchmarkPrompt:
    return replace(_single_prompt(rng), checks_background=True)


def _pair_prompt(rng: Generator) -> BenchmarkPrompt:
    one, other = (Subject(OBJECTS[i].icon) for i in rng.choice(len(OBJECTS), 2, replace=False))
    background, ground = _background(rng)
    text = _pick(rng, _TWO).format(a=_with_article(one), b=_with_article(other), ground=ground)
    return BenchmarkPrompt("two things", text, background, (one, other))


def _counting_prompt(rng: Generator) -> BenchmarkPrompt:
    obj, count = _object_class(rng, [obj for obj in OBJECTS if obj.counts]), int(rng.integers(2, 5))
    many = f"{_NUMBERS[count]} {plural(obj.wordings[0])}"
    background, ground = _background(rng)
    text = _pick(rng, _COUNTING).format(many=many, ground=ground)
    return BenchmarkPrompt("counting", text, background, (Subject(obj.icon, count),))


def _recoloured_subject(rng: Generator) -> Subject:
    """Return an object in a colour variant other than its usual colour."""
    obj = _object_class(rng, [obj for obj in OBJECTS if obj.colour is not None])
    return Subject(obj.icon, 1, _pick(rng, [variant for variant in COLOUR_VARIANTS if variant != obj.colour]))


def _colour_prompt(rng: Generator) -> BenchmarkPrompt:
    """Return a prompt with one or two recoloured objects, with equal probability."""
    if rng.random() < 0.5:
        return _one_colour_prompt(rng)
    one, other, (background, ground) = _recoloured_subject(rng), _recoloured_subject(rng), _background(rng)
    if one.icon == other.icon:
        return _colour_prompt(rng)
    text = _pick(rng, _TWO).format(a=_with_article(one), b=_with_article(other), ground=ground)
    return BenchmarkPrompt("colour", text, background, (one, other))


def _one_colour_prompt(rng: Generator) -> BenchmarkPrompt:
    subject, (background, ground) = _recoloured_subject(rng), _background(rng)
    text = _pick(rng, _COLOUR).format(a=_with_article(subject), ground=ground)
    return BenchmarkPrompt("colour", text, background, (subject,))


def _position_prompt(rng: Generator) -> BenchmarkPrompt:
    one, other = (Subject(OBJECTS[i].icon) for i in rng.choice(len(OBJECTS), 2, replace=False))
    relation: Relation = ("left", "above", "front")[int(rng.choice(3, p=(0.4, 0.4, 0.2)))]
    background, ground = _background(rng)
    text = _pick(rng, _POSITION[relation]).format(a=_with_article(one), b=_with_article(other), ground=ground)
    return BenchmarkPrompt("position", text, background, (one, other), relation)


# Scores ---------------------------------------------------------------------------------------------------------


def score(
    generate: Generate,
    detect: Callable[[NDArray[np.uint8]], Detections],
    prompts: Sequence[BenchmarkPrompt],
    seeds: Sequence[int],
) -> dict[str, float]:
    """Generate every prompt with every seed and return the share of right images by category, in [0, 1].

    The result has only categories with at least one prompt.
    """
    outcomes: dict[str, list[bool]] = {}
    for prompt in prompts:
        outcomes.setdefault(prompt.category, []).extend(
            is_right(prompt, detect(generate(prompt.text, seed))) for seed in seeds
        )
    return {category: float(np.mean(outcomes[category])) for category in ALL_CATEGORIES if category in outcomes}


def overall(shares: dict[str, float]) -> float:
    """Return the mean share of `CATEGORIES`."""
    return float(np.mean([shares[category] for category in CATEGORIES]))


def seed_difference(generate: Generate, prompts: Sequence[BenchmarkPrompt], seeds: Sequence[int]) -> float:
    """Return the mean absolute difference between images of one prompt with different seeds, in levels (0 to 255)."""
    differences = []
    for prompt in prompts:
        images = [generate(prompt.text, seed).astype(np.float32) for seed in seeds]
        differences += [float(np.abs(a - b).mean()) for i, a in enumerate(images) for b in images[:i]]
    return float(np.mean(differences))
