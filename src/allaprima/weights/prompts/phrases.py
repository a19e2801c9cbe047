"""Splits a prompt into phrases: names of things and places, colours, numbers, relations, and words without a meaning.

The captions of the training data are the grammar. `training/data/captions.py` has the phrases that this module knows.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from allaprima.weights.prompts.lexicon import Lexicon, Name, without_accents
from allaprima.weights.prompts.lexicon_fields import NOTHING, PLACE


class Kind(Enum):
    """What a phrase is in a caption."""

    NAME = auto()
    #: A place, and a plain background in a colour.
    PLACE = auto()
    GROUND = auto()
    COLOUR = auto()
    COUNT = auto()
    SIZE = auto()
    #: A relation of two things: above, left, front or with.
    LINK = auto()
    #: A preposition that precedes a place: in, on.
    AT = auto()
    OF = auto()
    AND = auto()
    WEAR = auto()
    HOLD = auto()
    NOT = auto()
    #: A phrase after which a thing is only compared, or is for something.
    LIKE = auto()
    ARTICLE = auto()
    #: A word of captions that changes little: praise, an action, "a picture of".
    FILLER = auto()
    #: A word that no image shows, such as "and" or "very".
    FUNCTION = auto()
    STYLE = auto()
    VERB = auto()
    STOP = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Phrase:
    """One or more words of a prompt."""

    kind: Kind
    #: The words as written.
    text: str
    #: What the phrase means: the place, the colour, the number, the size, the relation.
    value: str = ""
    name: Name | None = None
    #: Whether captions have the phrase; False for a word that is read as its nearest thing, place or colour.
    is_exact: bool = True
    #: Whether a relation has its two things in reverse order ("b is below a"); whether a plain background is one only
    #: if no noun follows.
    is_flipped: bool = False


#: Phrases of captions and of prompts, separated by ", ", with their kind and value; "-" reverses a relation.
_PHRASES: tuple[tuple[Kind, str, str], ...] = (
    (Kind.COUNT, "2", "two, a pair of, pair of, a couple of, couple of, pair, couple"),
    (Kind.COUNT, "3", "three, a trio of, trio of, trio, several, a few, some, many, multiple, numerous, lots of"),
    (Kind.COUNT, "3", "a lot of, a group of, group of, a bunch of, a flock of, flock of, a herd of, herd of"),
    (Kind.COUNT, "3", "a pack of, a swarm of, a school of, a row of, row of, a pile of, pile of"),
    (Kind.COUNT, "4", "four"),
    (Kind.COUNT, "5", "five"),
    (Kind.COUNT, "6", "six"),
    (Kind.COUNT, "7", "seven"),
    (Kind.COUNT, "8", "eight"),
    (Kind.COUNT, "9", "nine"),
    (Kind.COUNT, "10", "ten"),
    (Kind.COUNT, "12", "eleven, twelve, a dozen, dozens of, hundreds of, thousands of, countless"),
    (Kind.SIZE, "small", "small, little, tiny"),
    (Kind.SIZE, "big", "big, large, huge, giant, enormous, gigantic, massive"),
    (Kind.LINK, "left", "left of, to the left of, on the left of, to left of, to the left, to left"),
    (Kind.LINK, "-left", "right of, to the right of, on the right of, to right of, to the right, to right"),
    (Kind.LINK, "above", "above, over, on top of, atop, on top"),
    (Kind.LINK, "-above", "below, under, beneath, underneath"),
    (Kind.LINK, "front", "in front of, in front, front of, front"),
    (Kind.LINK, "-front", "behind"),
    (Kind.LINK, "with", "next to, beside, with, near, alongside, close to, plus, next"),
    (Kind.AT, "", "in, on, at, inside, into, onto, upon, within, through, across, along, by, among, amid"),
    (Kind.AT, "", "amongst, amidst, between, around, against, outside, off, down, up, from, out of, toward"),
    (Kind.AT, "", "towards, during, throughout, beyond"),
    (Kind.OF, "", "of"),
    (Kind.AND, "", "and, &, and also, as well as, together with, or, versus, vs"),
    (Kind.WEAR, "", "wearing, wears, and wearing, in a pair of, dressed in"),
    (Kind.HOLD, "", "holding, carrying, holds, carries, and holding"),
    (Kind.NOT, "", "without, without any, no, not, not a, never, no more, except, minus"),
    (Kind.LIKE, "", "like, as, for, to, about, than, looking like, shaped like, in the shape of, dressed as"),
    (Kind.LIKE, "", "made of, made from, made out of, in the style of, style of, inspired by, with the words"),
    (Kind.LIKE, "", "with the word, with text, with the text, saying, says, titled, named, called"),
    (Kind.ARTICLE, "", "a, an, the, one, 1, this, that, his, her, its, their, my, our, your, another, each"),
    (Kind.ARTICLE, "", "every, any"),
    (Kind.FILLER, "", "picture of, image of, drawing of, painting of, illustration of, icon of, clipart of"),
    (Kind.FILLER, "", "a picture of, an image of, a drawing of, a painting of, an illustration of, an icon of"),
    (Kind.FILLER, "", "draw, paint, show me, there is, i see, nice to see, fun to draw, lovely to paint"),
    (Kind.FILLER, "", "picture, image, drawing, painting, illustration, icon, clipart, standing, sitting"),
    (Kind.FILLER, "", "relaxing, lying, lying on a sun lounger, lying sun lounger, lying on sun lounger"),
    (Kind.FILLER, "", "lying a sun lounger, resting, having fun, fun, cute, beautiful, nice, lovely, pretty"),
    (Kind.FILLER, "", "happy, funny, side by side, side side, on the left, on the right, on left, on right"),
    (Kind.FILLER, "", "left, right, lounger"),
)
#: Phrases of a plain background: the words before its colour, separated by ", ", and the word after it.
_GROUNDS = (
    (
        "on a, on an, on, on the, with, with a, with an, a, an, against a, against an, against, plain",
        "background",
    ),
    ("on a plain, solid, on solid, on a solid, ", "background"),
    ("in front of a, in front of an, in front of, in front a, in front an, in front, front of a, front of an", "wall"),
    ("front of, front a, front an, front, against a, against an, against, ", "wall"),
    ("on a, on an, a, an, ", "backdrop"),
)
#: A plain background if no noun follows: "on red", but not "on red velvet".
_BARE_GROUNDS = ("on {}", "against {}")
#: Numbers that measure: "35mm", "8k", "v6".
_MEASURES = re.compile(r"\d+(?:k|d|mm|cm|m|px|p|s|fps|iso|th|st|nd|rd|x|bit|mp|hz|ft|kg|am|pm|c|f)|v\d+|f\d+|iso\d+")
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*|[&]|[^\w\s&-]|\n+| - |--+|(?<=[^\W_])-(?=[^\W_])")
#: Most words of a phrase.
_LONGEST = 6


@dataclass(frozen=True, slots=True)
class _Word:
    """A word, and whether a hyphen joins it to the word before."""

    text: str
    is_joined: bool


class PhraseReader:
    """Splits prompts into phrases, the longest first."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._table: dict[tuple[str, ...], Phrase] | None = None

    def read(self, text: str) -> list[Phrase]:
        """Return the phrases of a prompt in order."""
        words, found, at = list(_words(text)), [], 0
        while at < len(words):
            if not words[at].text[0].isalnum() and words[at].text != "&":
                found.append(Phrase(Kind.STOP, words[at].text))
                at += 1
                continue
            phrase, length = self._longest(words, at)
            found.append(phrase)
            at += length
        return [self._as_noun(found, at) for at in range(len(found))]

    def _as_noun(self, phrases: list[Phrase], at: int) -> Phrase:
        """Return a phrase, or the thing with the name of a colour: "an orange", but not "an orange cat"."""
        phrase, before = phrases[at], phrases[:at]
        is_last = at + 1 == len(phrases) or phrases[at + 1].kind in (Kind.STOP, Kind.AT, Kind.LINK, Kind.AND)
        is_named = bool(before) and before[-1].text in ("a", "an")
        is_named = is_named and (at == 1 or before[-2].kind in (Kind.STOP, Kind.AND, Kind.OF, Kind.FILLER))
        if phrase.kind == Kind.COLOUR and is_last and is_named:
            target = self._lexicon.find(phrase.text)
            return phrase if target in (None, NOTHING) else self._targeted(phrase.text, str(target), is_plural=False)
        return phrase

    def _longest(self, words: list[_Word], at: int) -> tuple[Phrase, int]:
        """Return the phrase at a word, and how many words it has."""
        joined = 1
        while at + joined < len(words) and words[at + joined].is_joined:
            joined += 1
        for length in range(min(_LONGEST, len(words) - at), 0, -1):
            # A phrase takes a hyphenated word whole: "two-story" has no number.
            if at + length < len(words) and words[at + length].is_joined:
                continue
            key = tuple(word.text for word in words[at : at + length])
            phrase = self._phrases.get(key) or self._compound(key)
            if phrase is not None:
                return _as_written(phrase, words[at : at + length]), length
        if joined > 1:
            return self._hyphenated(words[at : at + joined]), joined
        return self._single(words[at].text), 1

    def _compound(self, key: tuple[str, ...]) -> Phrase | None:
        if len(key) == 1:
            return None
        *first, last = key
        for form in (last, last.removesuffix("es"), last.removesuffix("s")):
            if target := self._lexicon.compounds.get((*first, form)):
                return self._targeted(" ".join(key), target, is_plural=form != last)
        return None

    def _single(self, word: str) -> Phrase:
        """Return the phrase of one word that is in no phrase of captions."""
        word = without_accents(word.removesuffix("'s").removesuffix("\u2019s").removesuffix("s'"))
        if phrase := self._phrases.get((word,)):
            return phrase
        if word.isdigit():
            return Phrase(Kind.COUNT, word, word) if 1 < int(word[:4]) < 100 else Phrase(Kind.FUNCTION, word)
        if word in self._lexicon.roles["style"] or _MEASURES.fullmatch(word):
            return Phrase(Kind.STYLE, word)
        if word in self._lexicon.roles["function"]:
            return Phrase(Kind.FUNCTION, word)
        return self._looked_up(word)

    def _looked_up(self, word: str) -> Phrase:
        """Return the phrase of a word that the lexicon may have."""
        bare = re.sub(r"^\d+", "", word) or word
        target = self._lexicon.find(bare) or NOTHING
        if target != NOTHING:
            singulars = (bare.removesuffix("s"), bare.removesuffix("es"))
            is_plural = not bare.endswith("ss") and any(
                one != bare and self._lexicon.find(one) == target for one in singulars
            )
            return self._targeted(word, target, is_plural=is_plural)
        if colour := self._lexicon.colours.get(bare):
            return Phrase(Kind.COLOUR, word, colour, is_exact=False)
        return Phrase(Kind.VERB if bare.endswith("ing") and len(bare) > 5 else Kind.UNKNOWN, word)

    def _hyphenated(self, words: list[_Word]) -> Phrase:
        """Return the phrase of words that hyphens join and that are no phrase of captions: "snow-covered"."""
        text = "-".join(word.text for word in words)
        styles = self._lexicon.roles["style"]
        if text in styles or all(word.text in styles or _MEASURES.fullmatch(word.text) for word in words):
            return Phrase(Kind.STYLE, text)
        first, last = self._single(words[0].text), self._single(words[-1].text)
        if last.kind == Kind.NAME:
            return Phrase(last.kind, text, last.value, last.name, is_exact=False)
        if first.kind == Kind.PLACE:
            return Phrase(Kind.PLACE, text, first.value, is_exact=False)
        if last.kind == Kind.COLOUR or (first.kind == Kind.COLOUR and words[-1].text in ("colored", "coloured")):
            return Phrase(Kind.COLOUR, text, last.value or first.value, is_exact=False)
        return Phrase(Kind.UNKNOWN, text)

    def _targeted(self, text: str, target: str, *, is_plural: bool) -> Phrase:
        if target == NOTHING:
            return Phrase(Kind.UNKNOWN, text)
        if target.startswith(PLACE):
            return Phrase(Kind.PLACE, text, target.removeprefix(PLACE), is_exact=False)
        thing = self._lexicon.things[target]
        return Phrase(Kind.NAME, text, name=Name(thing, thing.name, is_plural), is_exact=False)

    @property
    def _phrases(self) -> dict[tuple[str, ...], Phrase]:
        """The phrases of captions by their words."""
        if self._table is None:
            self._table = dict(self._make_phrases())
        return self._table

    def _make_phrases(self) -> Iterator[tuple[tuple[str, ...], Phrase]]:
        for kind, value, texts in _PHRASES:
            plain = value.removeprefix("-")
            for text in texts.split(", "):
                yield tuple(text.split()), Phrase(kind, text, plain, is_flipped=plain != value)
        for word, colour in self._lexicon.colours.items():
            is_exact = word in ("grey", "violet") or word == colour
            for before, after in _GROUNDS:
                for start in before.split(", "):
                    yield (*start.split(), word, after), Phrase(Kind.GROUND, word, colour, is_exact=is_exact)
            for form in _BARE_GROUNDS:
                yield (
                    tuple(form.format(word).split()),
                    Phrase(Kind.GROUND, word, colour, None, is_exact, is_flipped=True),
                )
            if is_exact:
                yield (word,), Phrase(Kind.COLOUR, word, colour)
        for key, place in self._lexicon.places.items():
            yield key, Phrase(Kind.PLACE, " ".join(key), place)
        for key, name in self._lexicon.names.items():
            yield key, Phrase(Kind.NAME, " ".join(key), name=name)


def _words(text: str) -> Iterator[_Word]:
    """Yield the words and the punctuation of a prompt."""
    is_joined = False
    # The apostrophe of "jack-o'-lantern" is no part of its words.
    text = unicodedata.normalize("NFKC", text).lower().replace("'-", "-").replace("\u2019-", "-")
    for match in _WORD.findall(text):
        if match == "-":
            is_joined = True
            continue
        yield _Word(match, is_joined)
        is_joined = False


def _as_written(phrase: Phrase, words: list[_Word]) -> Phrase:
    text = "".join(f"-{word.text}" if word.is_joined else f" {word.text}" for word in words).strip()
    written = phrase.text if phrase.kind == Kind.GROUND else text
    return Phrase(phrase.kind, written, phrase.value, phrase.name, phrase.is_exact, phrase.is_flipped)
