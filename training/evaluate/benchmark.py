"""The suite: prompts by category, in the manner of GenEval (Ghosh et al. 2023, 2310.11513), and what is right.

Prompts are worded by templates of the suite's own, none of which a caption has. Much of what is strange in them is
words that the model's tokenizer does not know and leaves out; what then reaches the encoders may well be a caption's
words in a caption's order. So templates measure above all that such words do no harm. How other people's words are
read is measured by the prompts of `prompts.txt`, which were written by hand before there was a model to paint them.
The judge is `detector`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.art import DYES
from training.data.backgrounds import BACKGROUNDS, PLACES
from training.data.captions import background_words
from training.data.held_out import is_held_out
from training.data.objects import BY_ICON, THINGS, Thing, article, plural
from training.data.scenes import Relation, Subject
from training.evaluate.evaluator import Found, Sight

#: Given a prompt and a seed, returns a square picture: uint8 (H, W, 3).
Paint = Callable[[str, int], NDArray[np.uint8]]

#: Prompts of each category, those written by hand aside.
PER_CATEGORY = 102
#: What overall is the mean of.
CATEGORIES = ("single thing", "two things", "background", "counting", "position", "colour")
#: Combinations that were never shown, those asked for in the same words that were, and the prompts written by hand.
HELD_OUT, SEEN, BY_HAND = "held-out combinations", "seen combinations", "by hand"
ALL_CATEGORIES = (*CATEGORIES, HELD_OUT, SEEN, BY_HAND)


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt, and what its picture has to show."""

    category: str
    text: str
    background: str
    subjects: tuple[Subject, ...]
    relation: Relation | None = None
    #: Whether the verdict looks at the background, and at the things.
    judges_background: bool = False
    judges_things: bool = True


# Verdicts -------------------------------------------------------------------------------------------------------


def is_right(ask: Ask, sight: Sight) -> bool:
    """Say whether a picture shows what was asked for: the background; each thing as often as asked, once if no number
    is asked, in its colour if one is asked; and the things where they were asked to be.
    """
    if ask.judges_background and sight.background != ask.background:
        return False
    if not ask.judges_things:
        return True
    found = [_matching(subject, sight) for subject in ask.subjects]
    if any(len(things) != subject.count for subject, things in zip(ask.subjects, found, strict=True)):
        return False
    return ask.relation in (None, "with") or _stand(str(ask.relation), found[0][0], found[1][0])


def _matching(subject: Subject, sight: Sight) -> list[Found]:
    """Return the things of that kind, all of them; none if one has not the colour that was asked for."""
    kind = [thing for thing in sight.things if thing.icon == subject.icon]
    # A thing may be seen as in its usual colour, or by that colour's name.
    usual = BY_ICON[subject.icon].colour
    if subject.dye is not None and any((thing.dye or usual) != subject.dye for thing in kind):
        return []
    return kind


def _stand(relation: str, first: Found, second: Found) -> bool:
    across, down = second.x - first.x, second.y - first.y
    if relation == "left":
        return across > abs(down)
    if relation == "above":
        return down > abs(across)
    # What is in front covers the other's lower part; what is just below stands lower.
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
def asks() -> tuple[Ask, ...]:
    """Return the prompts that models are compared by, `PER_CATEGORY` a category and those by hand."""
    rng = np.random.default_rng(2026)
    makers: dict[str, Callable[[Generator], Ask]] = {
        "single thing": _ask_single,
        "two things": _ask_two,
        "background": _ask_background,
        "counting": _ask_counting,
        "position": _ask_position,
        "colour": _ask_colour,
    }
    made = [ask for category in CATEGORIES for ask in _different(makers[category], rng, is_new=False)]
    kinds = (_ask_both, _ask_colour_alone, _ask_two)
    for category, is_new in ((HELD_OUT, True), (SEEN, False)):
        for maker in kinds:
            third = _different(maker, rng, is_new=is_new, count=PER_CATEGORY // len(kinds))
            made += [replace(ask, category=category) for ask in third]
    return (*made, *_by_hand())


def _different(
    maker: Callable[[Generator], Ask], rng: Generator, *, is_new: bool, count: int = PER_CATEGORY
) -> list[Ask]:
    """Return that many different asks, all of them held out or none."""
    chosen: dict[str, Ask] = {}
    while len(chosen) < count:
        ask = maker(rng)
        if is_held_out(ask.subjects, ask.background) == is_new:
            chosen[ask.text] = ask
    return list(chosen.values())


def _by_hand() -> Iterator[Ask]:
    lines = (files("training.evaluate") / "prompts.txt").read_text("utf-8").splitlines()
    for line in lines:
        background, icon, text = (part.strip() for part in line.split("|"))
        yield Ask(BY_HAND, text, background, (Subject(icon),), judges_background=True)


def _pick(rng: Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _thing(rng: Generator, choices: Sequence[Thing] = THINGS) -> Thing:
    return choices[int(rng.integers(len(choices)))]


def _ground(rng: Generator) -> tuple[str, str]:
    """Return a background and how a prompt asks for it: one colour in two, one place in two."""
    name = (
        _pick(rng, list(PLACES))
        if rng.random() < 0.5
        else _pick(rng, [name for name in BACKGROUNDS if name not in PLACES])
    )
    return name, background_words(name)[0]


def _a(subject: Subject) -> str:
    name = BY_ICON[subject.icon].wordings[0]
    if subject.dye is not None:
        name = f"{subject.dye} {name}"
    if not BY_ICON[subject.icon].counts:
        return name
    return f"{article(name)} {name}"


def _ask_single(rng: Generator) -> Ask:
    subject, (background, ground) = Subject(_thing(rng).icon), _ground(rng)
    return Ask("single thing", _pick(rng, _SINGLE).format(a=_a(subject), ground=ground), background, (subject,))


def _ask_background(rng: Generator) -> Ask:
    return replace(_ask_single(rng), category="background", judges_background=True, judges_things=False)


def _ask_both(rng: Generator) -> Ask:
    return replace(_ask_single(rng), judges_background=True)


def _ask_two(rng: Generator) -> Ask:
    one, other = (Subject(THINGS[i].icon) for i in rng.choice(len(THINGS), 2, replace=False))
    background, ground = _ground(rng)
    return Ask("two things", _pick(rng, _TWO).format(a=_a(one), b=_a(other), ground=ground), background, (one, other))


def _ask_counting(rng: Generator) -> Ask:
    thing, count = _thing(rng, [thing for thing in THINGS if thing.counts]), int(rng.integers(2, 5))
    many = f"{_NUMBERS[count]} {plural(thing.wordings[0])}"
    background, ground = _ground(rng)
    text = _pick(rng, _COUNTING).format(many=many, ground=ground)
    return Ask("counting", text, background, (Subject(thing.icon, count),))


def _dyed(rng: Generator) -> Subject:
    """Return a thing in a colour that is not its usual one."""
    thing = _thing(rng, [thing for thing in THINGS if thing.colour is not None])
    return Subject(thing.icon, 1, _pick(rng, [dye for dye in DYES if dye != thing.colour]))


def _ask_colour(rng: Generator) -> Ask:
    """Ask for one thing in a colour, or every other time for two in a colour each."""
    if rng.random() < 0.5:
        return _ask_colour_alone(rng)
    one, other, (background, ground) = _dyed(rng), _dyed(rng), _ground(rng)
    if one.icon == other.icon:
        return _ask_colour(rng)
    return Ask("colour", _pick(rng, _TWO).format(a=_a(one), b=_a(other), ground=ground), background, (one, other))


def _ask_colour_alone(rng: Generator) -> Ask:
    subject, (background, ground) = _dyed(rng), _ground(rng)
    return Ask("colour", _pick(rng, _COLOUR).format(a=_a(subject), ground=ground), background, (subject,))


def _ask_position(rng: Generator) -> Ask:
    one, other = (Subject(THINGS[i].icon) for i in rng.choice(len(THINGS), 2, replace=False))
    relation: Relation = ("left", "above", "front")[int(rng.choice(3, p=(0.4, 0.4, 0.2)))]
    background, ground = _ground(rng)
    text = _pick(rng, _POSITION[relation]).format(a=_a(one), b=_a(other), ground=ground)
    return Ask("position", text, background, (one, other), relation)


# Scores ---------------------------------------------------------------------------------------------------------


def score(
    paint: Paint, look: Callable[[NDArray[np.uint8]], Sight], asked: Sequence[Ask], seeds: Sequence[int]
) -> dict[str, float]:
    """Paint every prompt with every seed and return the share that is right by category, in [0, 1]; categories that
    nothing was asked of are left out.
    """
    rights: dict[str, list[bool]] = {}
    for ask in asked:
        rights.setdefault(ask.category, []).extend(is_right(ask, look(paint(ask.text, seed))) for seed in seeds)
    return {category: float(np.mean(rights[category])) for category in ALL_CATEGORIES if category in rights}


def overall(shares: dict[str, float]) -> float:
    """Return the mean of `CATEGORIES`."""
    return float(np.mean([shares[category] for category in CATEGORIES]))


def difference(paint: Paint, asked: Sequence[Ask], seeds: Sequence[int]) -> float:
    """Return by how many levels, of 255, two pictures of one prompt differ in the mean of pixels, pairs and prompts."""
    gaps = []
    for ask in asked:
        pictures = [paint(ask.text, seed).astype(np.float32) for seed in seeds]
        gaps += [float(np.abs(a - b).mean()) for i, a in enumerate(pictures) for b in pictures[:i]]
    return float(np.mean(gaps))
