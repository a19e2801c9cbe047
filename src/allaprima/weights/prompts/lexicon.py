"""The lexicon of the built-in model: its things, places and colours, and the nearest one of each common word.

`training/data/words.py` writes the file. The module imports neither numpy nor torch.
"""

import hashlib
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from allaprima.errors import WeightsCorrupt
from allaprima.weights.prompts.lexicon_fields import MAX_LEXICON_BYTES, LexiconFields, parse_lexicon

#: Name of the lexicon in a model folder. A folder without it has a model that reads prompts as they are.
LEXICON_FILE = "lexicon.json"
#: Words of captions that are dropped from terse ones.
FUNCTION_WORDS = frozenset(("a", "an", "the", "one", "of", "in", "on", "at", "with", "and", "background"))
#: Nouns in the phrases of places that name a thing without their preposition.
NO_PLACES = frozenset(("stars", "home"))
#: Prepositions that belong to the name of a place only.
_INNER = frozenset(("by", "under", "among"))


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing that the model can generate."""

    #: The first name of the thing, which identifies it.
    name: str
    names: tuple[str, ...]
    #: The plurals of `names`, in order; empty if captions never count the thing.
    plurals: tuple[str, ...]
    #: The colours in which the thing can be drawn.
    colours: frozenset[str]
    #: The names of the accessories that the thing can wear or hold.
    wears: frozenset[str]


@dataclass(frozen=True, slots=True)
class Name:
    """A name of a thing in a prompt."""

    thing: Thing
    #: The name in the singular.
    singular: str
    is_plural: bool


class Lexicon:
    """Words and their targets. The file is read at the first use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self, things: Collection[str], places: Collection[str]) -> None:
        """Check that the file is a valid lexicon which has these things, and no places but these.

        Raises `WeightsCorrupt`, naming the file.
        """
        for phrase in (phrase for phrases in self._fields.grammar.places.values() for phrase in phrases):
            if not bare_place(phrase):
                raise WeightsCorrupt(
                    f"{self._path} is invalid: a phrase in grammar.places has no noun: {phrase[:60]!a}"
                )
        if missing := sorted(set(things) - self.things.keys()):
            raise WeightsCorrupt(f"{self._path} is invalid: grammar.things must contain {missing[0]}")
        if self.grounds.keys() != set(places):
            raise WeightsCorrupt(f"{self._path} is invalid: grammar.places must be {', '.join(sorted(places))}")

    @property
    def digest(self) -> str:
        """The SHA-256 of the file in hexadecimal. Raises `WeightsCorrupt` if the file can't be read."""
        return hashlib.sha256(self._content).hexdigest()

    @cached_property
    def things(self) -> dict[str, Thing]:
        """The things by first name."""
        return {
            name: Thing(
                name,
                tuple(entry.names),
                tuple(entry.plurals),
                frozenset(entry.colours),
                frozenset(entry.wears),
            )
            for name, entry in self._fields.grammar.things.items()
        }

    @cached_property
    def colours(self) -> dict[str, str]:
        """The colour that each word names: the model's own colours, and others with the nearest of these."""
        own = {colour: colour for colour in self._fields.grammar.colours}
        return _words(self._fields.words.colours, "#") | own | {"grey": "gray", "violet": "purple"}

    @cached_property
    def roles(self) -> dict[str, frozenset[str]]:
        """The words of each role in a prompt: "function", "style", "container", "part" and "material"."""
        return {role: frozenset(words.split(" ")) for role, words in self._fields.words.roles.items()}

    @cached_property
    def grounds(self) -> dict[str, str]:
        """The usual phrase for each place, such as "on a beach"."""
        return {name: phrases[0] for name, phrases in self._fields.grammar.places.items()}

    @cached_property
    def names(self) -> dict[tuple[str, ...], Name]:
        """The things by the words of each name and plural: ("t", "rex") and ("tiny", ...) as the tokenizer has them."""
        found: dict[tuple[str, ...], Name] = {}
        for thing in self.things.values():
            for i, name in enumerate(thing.names):
                found.setdefault(split_words(name), Name(thing, name, is_plural=False))
                if thing.plurals:
                    found.setdefault(split_words(thing.plurals[i]), Name(thing, name, is_plural=True))
        return found

    @cached_property
    def places(self) -> dict[tuple[str, ...], str]:
        """The places by the words of each phrase, whole and without function words."""
        found: dict[tuple[str, ...], str] = {}
        for name, phrases in self._fields.grammar.places.items():
            for phrase in phrases:
                words = split_words(phrase)
                found[words] = name
                short = tuple(word for word in words if word not in FUNCTION_WORDS)
                for form in (short, bare_place(phrase)):
                    if form not in self.names and form[0] not in NO_PLACES:
                        found.setdefault(form, name)
        return found

    @cached_property
    def compounds(self) -> dict[tuple[str, ...], str]:
        """The targets of words that have several parts."""
        return {tuple(word.split("_")): target for word, target in self.targets.items() if "_" in word}

    @cached_property
    def targets(self) -> dict[str, str]:
        """The target of each word: the first name of a thing, "@" and a place, or `NOTHING`."""
        return _words(self._fields.words.things)

    def find(self, word: str) -> str | None:
        """Return the target of a word, or of its singular; None for a word that the lexicon lacks.

        word: lower-case.
        """
        for form in _forms(word):
            if target := self.targets.get(form):
                return target
            if name := self.names.get((form,)):
                return name.thing.name
        return None

    @cached_property
    def _content(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                # One byte more than allowed, so that `parse_lexicon` refuses a larger file, which is not read whole.
                return file.read(MAX_LEXICON_BYTES + 1)
        except OSError as exc:
            raise WeightsCorrupt(f"{self._path} can't be read: {exc.strerror}") from exc

    @cached_property
    def _fields(self) -> LexiconFields:
        try:
            return parse_lexicon(self._content)
        except ValueError as exc:
            raise WeightsCorrupt(f"{self._path} {exc}") from exc


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a phrase as the model's tokenizer splits them: at spaces and hyphens."""
    return tuple(text.lower().replace("-", " ").split())


def bare_place(phrase: str) -> tuple[str, ...]:
    """Return the nouns of a place's phrase: "by the seaside" -> ("seaside",)."""
    return tuple(word for word in split_words(phrase) if word not in FUNCTION_WORDS | _INNER)


def without_accents(text: str) -> str:
    """Return a text with the base letters of its accented ones."""
    return "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))


def _forms(word: str) -> Iterator[str]:
    """Yield a word, its singulars, and its American spelling."""
    yield word
    for ending, singular in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""), ("our", "or"), ("tre", "ter")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            yield word.removesuffix(ending) + singular


def _words(by_target: Mapping[str, str], prefix: str = "") -> dict[str, str]:
    return {word: target.removeprefix(prefix) for target, words in by_target.items() for word in words.split(" ")}
