"""Captions: sentences that describe a scene, in many wordings.

A caption states everything about a scene except its free factors. The name of an object follows its number, size and
colour, and precedes its accessory. The background is usually at the start or at the end.
"""

from functools import cache

from numpy.random import Generator

from training.data.art import COLOUR_VARIANTS
from training.data.backgrounds import BACKGROUNDS, OPEN, SCENIC
from training.data.objects import ACCESSORIES, BY_ACCESSORY, BY_ICON, OBJECTS, article, plural
from training.data.scenes import MAX_OBJECTS, Scene, Subject

#: Characters that mark the words of a scene's first to fourth subject in `marked_caption`. They are in Unicode's
#: private use area, which the tokenizers ignore.
MARKS = "\ue000\ue001\ue002\ue003"
assert len(MARKS) == MAX_OBJECTS
_UNMARKED = dict.fromkeys(map(ord, MARKS))

#: Synonyms of a colour variant's name.
COLOUR_WORDS = {"gray": ("gray", "grey"), "purple": ("purple", "violet")}
#: Phrases for a number of objects.
COUNT_WORDS = {2: ("two", "2", "a pair of", "a couple of"), 3: ("three", "3", "a trio of"), 4: ("four", "4")}
SIZE_WORDS = {
    "small": ("small", "little", "tiny"),
    "big": ("big", "large", "huge", "giant"),
}

_ARTICLES = ("a", "a", "a", "the", "one", "")
_PREFIXES = ("", "", "", "", "", "a picture of", "an image of", "a drawing of", "a painting of", "an illustration of",
            "an icon of", "clipart of", "draw", "paint", "show me", "there is", "i see", "nice to see", "fun to draw",
            "lovely to paint")  # fmt: skip
_ACTIONS = ("", "", "", "", "", "standing", "sitting", "relaxing", "lying", "lying on a sun lounger", "resting",
         "having fun")  # fmt: skip
_PRAISE = ("cute", "beautiful", "nice", "lovely", "pretty", "happy", "funny")
_FUNCTION_WORDS = frozenset(("a", "the", "one", "of", "in", "on", "at", "with", "and", "background"))
_WORN = ("wearing {}", "with {}", "wearing {}", "in {}")
_HELD = ("holding {}", "with {}", "holding {}", "carrying {}")
#: {0} is the first object, {1} the second.
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
    """Return a random caption of a scene."""
    return _plain(marked_caption(scene, rng))


def marked_caption(scene: Scene, rng: Generator) -> str:
    """Return the result of `caption` for the same generator state, with a mark after each word of a subject's name."""
    body = _body(scene, rng)
    ground = _pick(rng, background_words(scene.background))
    if rng.random() < 0.15:
        parts = [ground, *body]
    elif len(scene.subjects) == 1 and rng.random() < 0.3:
        parts = [body[0], ground, *body[1:]]
    else:
        parts = [*body, ground]
    sentence = " ".join(part for part in (_pick(rng, _PREFIXES), *parts) if part)
    return _terse(rng, sentence) if rng.random() < 0.2 else sentence


def _body(scene: Scene, rng: Generator) -> list[str]:
    """Return the phrases that describe a scene's objects; for a single object its name, action and accessory."""
    names = [_marked(_named(rng, subject), mark) for subject, mark in zip(scene.subjects, MARKS, strict=False)]
    if scene.relation is not None:
        return [_pick(rng, _RELATIONS[scene.relation]).format(*names)]
    if len(names) > 1:
        *most, last = names
        return [", ".join(most) + _pick(rng, (" and ", ", ", " and ")) + last]
    subject = scene.subjects[0]
    if subject.accessory is None:
        return [names[0], _pick(rng, _ACTIONS)] if subject.count == 1 else names
    accessory = BY_ACCESSORY[subject.accessory]
    form = _pick(rng, _HELD if accessory.place == "hand" else _WORN)
    worn = form.format(_pick(rng, accessory.wordings))
    act = _pick(rng, _ACTIONS)
    return [names[0], act, f"and {worn}" if act and rng.random() < 0.5 else worn]


def _named(rng: Generator, subject: Subject) -> str:
    """Return a phrase with the number, size, colour and name of a subject."""
    obj = BY_ICON[subject.icon]
    wording = obj.wordings[0] if rng.random() < 0.6 else _pick(rng, obj.wordings)
    words = []
    if rng.random() < 0.06:
        words.append(_pick(rng, _PRAISE))
    if subject.size is not None:
        words.append(_pick(rng, SIZE_WORDS[subject.size]))
    if subject.variant is not None:
        # A name such as "red apple" would contradict another colour.
        wording = wording.removeprefix("red ")
        words.append(_pick(rng, COLOUR_WORDS.get(subject.variant, (subject.variant,))))
    if subject.count > 1:
        return " ".join((_pick(rng, COUNT_WORDS[subject.count]), *words, plural(wording)))
    named = " ".join((*words, wording))
    before = _pick(rng, _ARTICLES)
    return f"{article(named) if before == 'a' else before} {named}".strip()


@cache
def background_words(name: str) -> tuple[str, ...]:
    """Return the phrases for a background. For the open background, it is the empty phrase."""
    if name == OPEN:
        return ("",)
    if name in SCENIC:
        return SCENIC[name].wordings
    words = COLOUR_WORDS.get(name, (name,))
    return tuple(form.replace("a {}", f"{article(word)} {{}}").format(word) for word in words for form in _GROUNDS)


def _pick(rng: Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _terse(rng: Generator, sentence: str) -> str:
    """Drop about half of a sentence's function words, to imitate terse prompts."""
    return " ".join(word for word in sentence.split() if _plain(word) not in _FUNCTION_WORDS or rng.random() < 0.5)


def _marked(phrase: str, mark: str) -> str:
    return " ".join(word + mark for word in phrase.split())


def _plain(text: str) -> str:
    return text.translate(_UNMARKED)


def vocabulary() -> list[str]:
    """Return the vocabulary of the built-in model: all words that a caption can contain, sorted."""
    sentences = [*_ARTICLES, *_PREFIXES, *_ACTIONS, *_PRAISE, *_WORN, *_HELD]
    sentences += [
        form for forms in (*_RELATIONS.values(), *COUNT_WORDS.values(), *SIZE_WORDS.values()) for form in forms
    ]
    sentences += [word for variant in COLOUR_VARIANTS for word in COLOUR_WORDS.get(variant, (variant,))]
    sentences += [wording for accessory in ACCESSORIES for wording in accessory.wordings]
    for obj in OBJECTS:
        sentences += obj.wordings
        sentences += [plural(wording) for wording in obj.wordings]
    sentences += [wording for name in BACKGROUNDS for wording in background_words(name)]
    cleaned = (
        sentence.replace("-", " ").replace("{0}", "").replace("{1}", "").replace("{}", "") for sentence in sentences
    )
    return sorted({word for sentence in cleaned for word in sentence.lower().split()})
