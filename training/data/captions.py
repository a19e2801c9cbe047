"""Sentences that describe a scene, in the many wordings that people use.

A caption says what the scene is about, and may leave nothing of it out but what a scene's leeway decides. Numbers,
colours and sizes stand before the thing, what is worn or held behind it; the background comes first or last.
"""

from functools import cache

from numpy.random import Generator

from training.data.art import DYES
from training.data.backgrounds import BACKGROUNDS, OPEN, PLACES
from training.data.objects import ACCESSORIES, BY_ACCESSORY, BY_ICON, THINGS, article, plural
from training.data.scenes import MOST, Scene, Subject

#: Marks of a scene's first to fourth subject, for `marked_caption`: characters of no alphabet, which tokenizers skip.
MARKS = "\ue000\ue001\ue002\ue003"
assert len(MARKS) == MOST
_UNMARKED = dict.fromkeys(map(ord, MARKS))

#: Other words for a colour.
COLOUR_WORDS = {"gray": ("gray", "grey"), "purple": ("purple", "violet")}
#: Words for a number of things.
COUNT_WORDS = {2: ("two", "2", "a pair of", "a couple of"), 3: ("three", "3", "a trio of"), 4: ("four", "4")}
SIZE_WORDS = {
    "small": ("small", "little", "tiny"),
    "big": ("big", "large", "huge", "giant"),
}

_ARTICLES = ("a", "a", "a", "the", "one", "")
_OPENERS = ("", "", "", "", "", "a picture of", "an image of", "a drawing of", "a painting of", "an illustration of",
            "an icon of", "clipart of", "draw", "paint", "show me", "there is", "i see", "nice to see", "fun to draw",
            "lovely to paint")  # fmt: skip
_ACTS = ("", "", "", "", "", "standing", "sitting", "relaxing", "lying", "lying on a sun lounger", "resting",
         "having fun")  # fmt: skip
_PRAISE = ("cute", "beautiful", "nice", "lovely", "pretty", "happy", "funny")
_SMALL_WORDS = frozenset(("a", "the", "one", "of", "in", "on", "at", "with", "and", "background"))
_WORN = ("wearing {}", "with {}", "wearing {}", "in {}")
_HELD = ("holding {}", "with {}", "holding {}", "carrying {}")
#: {0} is the first thing, {1} the second.
_RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("{0} left of {1}", "{0} to the left of {1}", "{1} right of {0}", "{1} to the right of {0}",
             "{0} on the left and {1} on the right", "{1} on the right and {0} on the left"),
    "above": ("{0} above {1}", "{1} below {0}", "{1} under {0}", "{0} over {1}", "{0} on top of {1}",
              "{1} beneath {0}"),
    "front": ("{0} in front of {1}", "{1} behind {0}"),
    "with": ("{0} and {1}", "{0} next to {1}", "{0} beside {1}", "{0} with {1}", "{0} and {1} side by side"),
}  # fmt: skip
_GROUNDS = ("on a {} background", "{} background", "on {}", "with a {} background", "in front of a {} wall",
            "against a {} background")  # fmt: skip


def caption(scene: Scene, rng: Generator) -> str:
    """Return one of the sentences that describe a scene; the generator picks the wording."""
    return _plain(marked_caption(scene, rng))


def marked_caption(scene: Scene, rng: Generator) -> str:
    """Return what `caption` would, in which each word of a subject's name is followed by that subject's mark."""
    body = _body(scene, rng)
    ground = _pick(rng, background_words(scene.background))
    if rng.random() < 0.15:
        parts = [ground, *body]
    elif len(scene.subjects) == 1 and rng.random() < 0.3:
        parts = [body[0], ground, *body[1:]]
    else:
        parts = [*body, ground]
    sentence = " ".join(part for part in (_pick(rng, _OPENERS), *parts) if part)
    return _terse(rng, sentence) if rng.random() < 0.2 else sentence


def _body(scene: Scene, rng: Generator) -> list[str]:
    """Return what is said of a scene's things: of one, the thing first and what it does and wears behind it."""
    names = [_marked(_named(rng, subject), mark) for subject, mark in zip(scene.subjects, MARKS, strict=False)]
    if scene.relation is not None:
        return [_pick(rng, _RELATIONS[scene.relation]).format(*names)]
    if len(names) > 1:
        *most, last = names
        return [", ".join(most) + _pick(rng, (" and ", ", ", " and ")) + last]
    subject = scene.subjects[0]
    if subject.accessory is None:
        return [names[0], _pick(rng, _ACTS)] if subject.count == 1 else names
    accessory = BY_ACCESSORY[subject.accessory]
    form = _pick(rng, _HELD if accessory.place == "hand" else _WORN)
    worn = form.format(_pick(rng, accessory.wordings))
    act = _pick(rng, _ACTS)
    return [names[0], act, f"and {worn}" if act and rng.random() < 0.5 else worn]


def _named(rng: Generator, subject: Subject) -> str:
    """Name a subject: how many, how big, which colour, what."""
    thing = BY_ICON[subject.icon]
    wording = thing.wordings[0] if rng.random() < 0.6 else _pick(rng, thing.wordings)
    words = []
    if rng.random() < 0.06:
        words.append(_pick(rng, _PRAISE))
    if subject.size is not None:
        words.append(_pick(rng, SIZE_WORDS[subject.size]))
    if subject.dye is not None:
        # "red apple" is a name of its own.
        wording = wording.removeprefix("red ")
        words.append(_pick(rng, COLOUR_WORDS.get(subject.dye, (subject.dye,))))
    if subject.count > 1:
        return " ".join((_pick(rng, COUNT_WORDS[subject.count]), *words, plural(wording)))
    named = " ".join((*words, wording))
    before = _pick(rng, _ARTICLES)
    return f"{article(named) if before == 'a' else before} {named}".strip()


@cache
def background_words(name: str) -> tuple[str, ...]:
    """Return the ways to ask for a background; of the open one, to say nothing."""
    if name == OPEN:
        return ("",)
    if name in PLACES:
        return PLACES[name].wordings
    words = COLOUR_WORDS.get(name, (name,))
    return tuple(form.replace("a {}", f"{article(word)} {{}}").format(word) for word in words for form in _GROUNDS)


def _pick(rng: Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _terse(rng: Generator, sentence: str) -> str:
    """Leave out about half of a sentence's small words, as people in a hurry do."""
    return " ".join(word for word in sentence.split() if _plain(word) not in _SMALL_WORDS or rng.random() < 0.5)


def _marked(phrase: str, mark: str) -> str:
    return " ".join(word + mark for word in phrase.split())


def _plain(text: str) -> str:
    return text.translate(_UNMARKED)


def words() -> list[str]:
    """Return every word that a caption can hold, in order of the alphabet: the built-in model's vocabulary."""
    sentences = [*_ARTICLES, *_OPENERS, *_ACTS, *_PRAISE, *_WORN, *_HELD]
    sentences += [
        form for forms in (*_RELATIONS.values(), *COUNT_WORDS.values(), *SIZE_WORDS.values()) for form in forms
    ]
    sentences += [word for dye in DYES for word in COLOUR_WORDS.get(dye, (dye,))]
    sentences += [wording for accessory in ACCESSORIES for wording in accessory.wordings]
    for thing in THINGS:
        sentences += thing.wordings
        sentences += [plural(wording) for wording in thing.wordings]
    sentences += [wording for name in BACKGROUNDS for wording in background_words(name)]
    cleaned = (
        sentence.replace("-", " ").replace("{0}", "").replace("{1}", "").replace("{}", "") for sentence in sentences
    )
    return sorted({word for sentence in cleaned for word in sentence.lower().split()})
