"""Reads a prompt for the built-in model: returns a caption in the grammar of its training data, and what is different.

A prompt that is in this grammar already is not changed. FLUX models have no reader: they read prompts as they are.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from allaprima.weights.prompts.lexicon import LEXICON_FILE, Lexicon
from allaprima.weights.prompts.phrases import Kind, PhraseReader
from allaprima.weights.prompts.scene import Item, Scene, SceneReader, impossible_colours, is_caption
from allaprima.weights.prompts.syntax import plain

#: Most words that one warning names.
MAX_NAMED = 12
#: Most letters of a named word.
MAX_LETTERS = 40
#: Most warnings with one reading each; further readings share a warning.
MAX_READINGS = 8
#: The background of a prompt that names none of which the model knows anything.
DEFAULT_PLACE = "meadow"
#: What a scene without a thing shows, by background.
_EMBLEMS = {
    "beach": "palm tree", "night": "moon", "meadow": "tree", "desert": "cactus", "snow": "pine tree",
    "sea": "sailboat", "sunset": "palm tree", "forest": "pine tree", "city": "car", "room": "chair", "space": "planet",
    "mountains": "pine tree", "underwater": "fish",
}  # fmt: skip
#: What a scene without a thing shows on a coloured background.
_EMBLEM_WITHOUT_PLACE = "star"
_NUMBERS = {2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True, slots=True)
class PromptReading:
    """How the built-in model reads a prompt."""

    #: What the text encoders get.
    caption: str
    #: Sentences for the client about words that the caption has not.
    warnings: tuple[str, ...] = ()
    #: Words that are read as the thing, the place or the colour near them.
    read_as: tuple[tuple[str, str], ...] = ()
    #: The things and the places of the caption, the main thing first.
    things: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


class PromptReader:
    """Reads prompts with a lexicon."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self._phrases = PhraseReader(lexicon)
        self._scenes = SceneReader(lexicon)
        self._read = lru_cache(maxsize=256)(self._read_now)

    def read(self, prompt: str) -> PromptReading:
        """Return how the model reads a prompt. Raises `WeightsCorrupt` if the lexicon can't be read."""
        return self._read(prompt)

    def _read_now(self, prompt: str) -> PromptReading:
        cleaned = plain(prompt)
        phrases = self._phrases.read(cleaned.text)
        if is_caption(phrases) and not cleaned.ignored and not cleaned.quoted:
            things = tuple(phrase.name.thing.name for phrase in phrases if phrase.name is not None)
            places = tuple(phrase.value for phrase in phrases if phrase.kind in (Kind.PLACE, Kind.GROUND))
            # A prompt without the syntax of other programs keeps its tokens.
            caption = prompt if cleaned.text == prompt else " ".join(cleaned.text.split())
            return PromptReading(caption, _left_out(impossible_colours(phrases)), things=things, places=places)
        scene = self._scenes.read(phrases)
        first = []
        if not scene.items:
            first = [self._add_emblem(scene)]
        places = (scene.ground,) if scene.ground else tuple(phrase.value for _, phrase in scene.places)
        return PromptReading(
            self._caption(scene),
            (*first, *_warnings(scene, prompt), *_syntax_warnings(cleaned.ignored, cleaned.quoted)),
            tuple(scene.read_as.items()),
            tuple(item.thing.name for item in scene.items),
            places,
        )

    def _add_emblem(self, scene: Scene) -> str:
        """Add a thing that suits the place to a scene without one; return the warning."""
        place = scene.places[0][1].value if scene.places else DEFAULT_PLACE
        name = _EMBLEM_WITHOUT_PLACE if scene.ground else _EMBLEMS[place]
        thing = self.lexicon.things[name]
        phrase = self._phrases.read(name)[0]
        scene.items.append(Item(thing, name, 1, False, None, None, phrase, phrase))  # noqa: FBT003 - no plural
        if not scene.places and not scene.ground:
            scene.places.append((1, self._phrases.read(self.lexicon.grounds[place])[0]))
        return f'the model knows no thing in this prompt; the image shows "{self._caption(scene)}"'

    def _caption(self, scene: Scene) -> str:
        grounds = [self.lexicon.grounds[phrase.value] for _, phrase in scene.places]
        if scene.ground:
            grounds = [f"on {_article(scene.ground)} {scene.ground} background"]
        return " ".join((_body(scene.items), *grounds))


def open_reader(folder: Path) -> PromptReader | None:
    """Return the reader of a model folder, or None if it has no lexicon.

    Raises `WeightsCorrupt` for an invalid lexicon, naming the file and the field.
    """
    path = folder / LEXICON_FILE
    if not path.is_file():
        return None
    lexicon = Lexicon(path)
    lexicon.check({*_EMBLEMS.values(), _EMBLEM_WITHOUT_PLACE}, _EMBLEMS)
    return PromptReader(lexicon)


def _body(items: list[Item]) -> str:
    """Return the part of a caption that names the things."""
    if len(items) == 1:
        item = items[0]
        worn = f" {_worn(item.accessory)}" if item.accessory and item.count == 1 else ""
        return _named(item, item.count, item.size) + worn
    has_count = any(item.count > 1 for item in items) and len(items) == 2
    names = [_named(item, item.count if has_count else 1, None) for item in items]
    if len(items) > 2:
        return ", ".join(names[:-1]) + f" and {names[-1]}"
    link = items[1].link
    one, other = reversed(names) if link.is_flipped else names
    forms = {"left": "{} left of {}", "above": "{} above {}", "front": "{} in front of {}"}
    return forms.get(link.value if link.kind == Kind.LINK else "", "{} next to {}").format(one, other)


def _named(item: Item, count: int, size: str | None) -> str:
    """Return a thing with its number, size and colour."""
    name = item.singular
    if item.colour is not None:
        name = f"{item.colour} {name.removeprefix('red ')}"
    if count > 1:
        plural = item.thing.plurals[item.thing.names.index(item.singular)]
        colour = f"{item.colour} " if item.colour else ""
        return f"{_NUMBERS[count]} {colour}{plural.removeprefix('red ') if colour else plural}"
    if size is not None:
        name = f"{size} {name}"
    return name if name.endswith("s") and not item.thing.plurals else f"{_article(name)} {name}"


def _worn(accessory: str) -> str:
    if accessory in ("balloon", "tulip", "lollipop"):
        return f"holding a {accessory}"
    return "wearing sunglasses" if accessory == "sunglasses" else f"wearing a {accessory}"


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" and not name.startswith(("uni", "ufo")) else "a"


def _warnings(scene: Scene, prompt: str) -> list[str]:
    readings = [f"{word}: read as {target}" for word, target in scene.read_as.items()]
    found = readings[:MAX_READINGS]
    if rest := readings[MAX_READINGS:]:
        found.append("; ".join(rest))
    if scene.unknown:
        found.append(f"the model does not know these words: {_listed(_as_written(scene.unknown, prompt))}")
    found += _left_out(scene.left_out)
    if scene.styles:
        found.append(f"words of style change nothing: {_listed(scene.styles)}")
    return [*found, *dict.fromkeys(scene.counts)]


def _left_out(words: list[str]) -> tuple[str, ...]:
    return (f"left out: {_listed(words)}",) if words else ()


def _syntax_warnings(ignored: tuple[str, ...], quoted: tuple[str, ...]) -> list[str]:
    found = []
    if ignored:
        found.append(f"tags and options of other programs are ignored: {_listed(list(ignored))}")
    if quoted:
        found.append(f"the model can't write: {_listed(list(quoted))}")
    return found


def _as_written(words: list[str], prompt: str) -> list[str]:
    """Return words in the case of the prompt."""
    lower = prompt.lower()
    found = [lower.find(word) for word in words]
    has_same_length = len(lower) == len(prompt)
    return [
        prompt[at : at + len(word)] if at >= 0 and has_same_length else word
        for word, at in zip(words, found, strict=True)
    ]


def _listed(words: list[str]) -> str:
    """Return words without repetitions, the first `MAX_NAMED` of them by name."""
    distinct = [word if len(word) <= MAX_LETTERS else word[:MAX_LETTERS] + "..." for word in dict.fromkeys(words)]
    more = len(distinct) - MAX_NAMED
    return ", ".join(distinct[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
