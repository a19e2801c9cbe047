"""Reads phrases as a scene: up to four things, their relation, and a background."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

from allaprima.weights.prompts.lexicon import FUNCTION_WORDS, Lexicon, Name, Thing
from allaprima.weights.prompts.phrases import Kind, Phrase

#: Most things of a scene, and most of these that are only neighbours of what the prompt names.
MAX_THINGS, MAX_NEIGHBOURS = 4, 2
#: Largest number of equal things.
MAX_COUNT = 4
#: Backgrounds that are times or weathers, which the model can combine with a location.
_TIMES = frozenset(("night", "sunset", "snow"))
#: Things in or on which another one is in a room: "in a church", "on a sofa".
_INTERIORS = frozenset(("house", "castle", "chair"))
_INSIDE = frozenset(("in", "inside", "on", "at", "within"))
#: Things of the weather, which are shown where the main thing is: "walking in the rain".
_SKY = frozenset(("cloud", "rainbow", "sun", "moon", "star", "fire"))
#: The first words of places that a preposition begins: "in the forest".
_PREPOSITIONS = frozenset(("in", "on", "at", "by", "under", "among"))
_NOUNS = frozenset((Kind.NAME, Kind.PLACE, Kind.UNKNOWN))
#: What surrounds a thing, so that its colour is that of the background: "red everywhere", "a gray concrete wall".
_SURROUNDINGS = frozenset(
    [
        "everywhere",
        "around",
        "else",
        "wall",
        "walls",
        "wallpaper",
        "canvas",
        "paper",
        "surface",
        "backdrop",
        "background",
    ]
)


@dataclass(slots=True)
class NounPhrase:
    """The words between two prepositions, articles or commas: attributes, modifiers and a head."""

    #: The kind of the phrase before it, and its relation.
    link: Phrase
    count: Phrase | None = None
    size: str | None = None
    colours: list[Phrase] = field(default_factory=list)
    nouns: list[Phrase] = field(default_factory=list)
    #: Words that the model does not know.
    unknown: list[str] = field(default_factory=list)
    #: Whether an unknown word follows a thing, so that the next thing begins another phrase.
    is_closed: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether the phrase has no noun."""
        return not self.nouns

    @property
    def surrounds(self) -> bool:
        """Whether the phrase names no thing but its colour, or what surrounds a thing."""
        return all(noun.kind == Kind.UNKNOWN for noun in self.nouns) and (
            self.is_empty or not _SURROUNDINGS.isdisjoint(self.unknown)
        )


@dataclass(frozen=True, slots=True)
class Item:
    """A thing of a scene, as the prompt has it."""

    thing: Thing
    #: The name for the caption, in the singular.
    singular: str
    count: int
    is_plural: bool
    colour: str | None
    size: str | None
    #: The phrase that named the thing.
    phrase: Phrase
    link: Phrase
    accessory: str | None = None


@dataclass(slots=True)
class Scene:
    """What a prompt describes, and what became of its words."""

    items: list[Item] = field(default_factory=list)
    #: The colour of a plain background.
    ground: str | None = None
    #: Colours that belong to no noun.
    free_colours: list[Phrase] = field(default_factory=list)
    places: list[tuple[int, Phrase]] = field(default_factory=list)
    #: Words that are read as a thing, a place or a colour near them, with that name.
    read_as: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    #: Known words that the image does not show.
    left_out: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    #: Numbers that are beyond what the model can count to.
    counts: list[str] = field(default_factory=list)


def is_caption(phrases: list[Phrase]) -> bool:
    """Whether a prompt already is in the grammar of captions, with known words alone."""
    names = [phrase for phrase in phrases if phrase.kind == Kind.NAME]
    if not names or len(names) > MAX_THINGS + 1 or not all(phrase.is_exact for phrase in phrases):
        return False
    allowed = {Kind.NAME, Kind.PLACE, Kind.GROUND, Kind.COLOUR, Kind.COUNT, Kind.SIZE, Kind.LINK, Kind.AT, Kind.OF,
               Kind.AND, Kind.WEAR, Kind.HOLD, Kind.ARTICLE, Kind.FILLER, Kind.STOP}  # fmt: skip
    return all(phrase.kind in allowed and _is_in_grammar(phrases, at, len(names)) for at, phrase in enumerate(phrases))


def impossible_colours(phrases: list[Phrase]) -> list[str]:
    """Return the colours of a caption that the things after them can't have."""
    return [
        f"{phrase.text} (of {following.text})"
        for phrase, following in pairwise(phrases)
        if phrase.kind == Kind.COLOUR and following.name and phrase.value not in following.name.thing.colours
    ]


def _is_in_grammar(phrases: list[Phrase], at: int, names: int) -> bool:
    """Whether captions have a phrase with what follows it."""
    phrase, rest = phrases[at], phrases[at + 1 :]
    following = next((one for one in rest if one.kind not in (Kind.SIZE, Kind.COLOUR, Kind.FILLER)), None)
    if phrase.kind == Kind.GROUND and phrase.is_flipped:
        return not rest or rest[0].kind not in _NOUNS
    if phrase.kind == Kind.COUNT:
        return int(phrase.value) <= MAX_COUNT and following is not None and following.kind == Kind.NAME
    if phrase.kind == Kind.SIZE:
        return following is not None and following.kind == Kind.NAME and names == 1
    if phrase.kind in (Kind.WEAR, Kind.HOLD):
        return _can_wear(phrases[:at], rest)
    return True


def _can_wear(before: list[Phrase], rest: list[Phrase]) -> bool:
    subject = next((one.name.thing for one in reversed(before) if one.name is not None), None)
    worn = next((one.name.thing for one in rest if one.name is not None), None)
    return subject is not None and worn is not None and worn.name in subject.wears


class SceneReader:
    """Reads the phrases of a prompt as a scene."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def read(self, phrases: list[Phrase]) -> Scene:
        """Return the scene of a prompt's phrases."""
        scene = Scene()
        previous: Item | None = None
        link = Phrase(Kind.STOP, "")
        for noun_phrase in self._noun_phrases(_without_monochrome(phrases), scene):
            # "with an egg and onions": the onions have the role of the egg.
            if noun_phrase.link.kind == Kind.AND and link.kind != Kind.STOP:
                noun_phrase.link = link
            if noun_phrase.surrounds:
                scene.free_colours += noun_phrase.colours
            if noun_phrase.is_empty:
                if noun_phrase.count is not None and not noun_phrase.count.text.isdigit():
                    scene.unknown.append(noun_phrase.count.text)
                continue
            link = noun_phrase.link
            # "Of" belongs to the noun before it alone: "a dog in a field of flowers", "a clock on a sheet of paper".
            previous = self._add(scene, noun_phrase, previous)
        _colour_ground(scene)
        self._limit(scene)
        return scene

    # Noun phrases ---------------------------------------------------------------------------------------------------

    def _noun_phrases(self, phrases: list[Phrase], scene: Scene) -> list[NounPhrase]:
        """Group phrases into noun phrases, and note styles and unknown words in the scene."""
        found = [NounPhrase(Phrase(Kind.STOP, ""))]
        for at, phrase in enumerate(phrases):
            if phrase.kind == Kind.PLACE and phrase.text.split()[0] in _PREPOSITIONS:
                found.append(NounPhrase(Phrase(Kind.AT, phrase.text.split()[0]), nouns=[phrase]))
            elif phrase.kind in _NOUNS or phrase.kind == Kind.VERB:
                found.extend(self._with_noun(found[-1], phrase, scene))
            elif phrase.kind in (Kind.COLOUR, Kind.SIZE, Kind.COUNT) or _is_colour(phrases, at):
                if not found[-1].is_empty:
                    found.append(NounPhrase(Phrase(Kind.STOP, "")))
                _set_attribute(found[-1], phrase)
            else:
                found.extend(_separated(found[-1], phrase, scene))
        return found

    def _with_noun(self, current: NounPhrase, phrase: Phrase, scene: Scene) -> list[NounPhrase]:
        """Add a noun to a noun phrase; return the new noun phrase that the noun begins, if it does."""
        has_thing = any(noun.kind in (Kind.NAME, Kind.PLACE) for noun in current.nouns)
        if phrase.kind == Kind.VERB:
            scene.unknown.append(phrase.text)
            return [] if current.is_empty else [NounPhrase(phrase)]
        if _is_verb(current, phrase):
            scene.unknown.append(phrase.text)
            current.is_closed = True
            return []
        if phrase.kind == Kind.UNKNOWN:
            scene.unknown.append(phrase.text)
            current.unknown.append(phrase.text)
            current.is_closed = current.is_closed or has_thing
            if current.is_empty:
                current.nouns.append(phrase)
            return []
        if current.is_closed and has_thing:
            return [NounPhrase(Phrase(Kind.VERB, ""), nouns=[phrase])]
        current.nouns.append(phrase)
        return []

    # Roles ----------------------------------------------------------------------------------------------------------

    def _add(self, scene: Scene, phrase: NounPhrase, previous: Item | None) -> Item | None:
        """Add what a noun phrase names to the scene; return the new item."""
        known = [noun for noun in phrase.nouns if noun.kind in (Kind.NAME, Kind.PLACE)]
        if not known:
            return None
        *modifiers, head = known
        if self._has_role(head, "depiction") and modifiers and modifiers[-1].is_exact:
            *modifiers, head = head, *modifiers  # a toy dinosaur, a dragon statue
        if phrase.link.kind in (Kind.NOT, Kind.LIKE) and (scene.items or phrase.link.kind == Kind.NOT):
            scene.left_out += [noun.text for noun in known]
            return None
        if head.kind == Kind.PLACE:
            return self._add_place(scene, phrase, modifiers, head, previous)
        for modifier in modifiers:
            if colour := self._lexicon.colours.get(modifier.text):
                phrase.colours.append(Phrase(Kind.COLOUR, modifier.text, colour, is_exact=colour == modifier.text))
            elif modifier.kind == Kind.PLACE and modifier.text not in self._lexicon.roles["material"]:
                scene.places.append((1, modifier))
            elif modifier.name is None or head.name is None or modifier.name.thing != head.name.thing:
                scene.left_out.append(_bare(modifier.text))
        if phrase.link.kind == Kind.OF and previous is not None and scene.items and scene.items[-1] is previous:
            return self._add_of(scene, phrase, head, previous)
        return self._add_thing(scene, phrase, head, previous)

    def _add_place(
        self, scene: Scene, phrase: NounPhrase, modifiers: list[Phrase], head: Phrase, previous: Item | None
    ) -> Item | None:
        """Add a place, and the thing before it: "a sunflower field"."""
        if phrase.link.kind == Kind.LINK and head.text in self._lexicon.roles["material"]:
            scene.left_out.append(head.text)
            return None
        nature = [noun for noun in modifiers if noun.kind == Kind.PLACE and noun.is_exact]
        if head.value == "city" and not head.is_exact and nature:
            scene.left_out.append(head.text)
            head = nature[-1]
            modifiers = [noun for noun in modifiers if noun is not head]
        is_located = phrase.link.kind in (Kind.AT, Kind.LINK) or not head.is_exact
        scene.places.append((3 if is_located or head.is_exact else 2, head))
        things = [noun for noun in modifiers if noun.kind == Kind.NAME and noun.is_exact]
        scene.left_out += [noun.text for noun in modifiers if noun.kind == Kind.NAME and not noun.is_exact]
        scene.places += [
            (1, noun)
            for noun in modifiers
            if noun.kind == Kind.PLACE and noun.text not in self._lexicon.roles["material"]
        ]
        scene.left_out += [colour.text for colour in phrase.colours]
        if not things or (scene.items and phrase.link.kind == Kind.AT):
            scene.left_out += [noun.text for noun in things]
            return None
        scene.left_out += [noun.text for noun in things[:-1]]
        bare = NounPhrase(replace(phrase.link, kind=Kind.STOP))
        return self._add_thing(scene, bare, things[-1], previous)

    def _add_of(self, scene: Scene, phrase: NounPhrase, head: Phrase, previous: Item) -> Item | None:
        """Choose between the two nouns of "a statue of a lion": the first, unless it depicts or holds the second."""
        if not self._is_container(previous.phrase) and not self._has_role(previous.phrase, "depiction"):
            scene.left_out.append(head.text)
            return None
        scene.items.pop()
        scene.read_as.pop(previous.phrase.text, None)
        scene.left_out.append(previous.phrase.text)
        phrase.link = previous.link
        return self._add_thing(scene, phrase, head, None)

    def _add_thing(self, scene: Scene, phrase: NounPhrase, head: Phrase, previous: Item | None) -> Item | None:
        name, link = head.name, phrase.link
        assert name is not None
        if link.kind in (Kind.WEAR, Kind.HOLD) or (link.kind == Kind.LINK and link.text == "with"):
            if previous is not None and previous is scene.items[-1] and name.thing.name in previous.thing.wears:
                scene.items[-1] = replace(previous, accessory=name.thing.name)
                _note_reading(scene, head)
                return scene.items[-1]
            if scene.items and not head.is_exact:
                scene.left_out.append(head.text)
                return None
        if not self._is_shown(scene, phrase, head):
            return None
        item = Item(
            name.thing,
            # Captions have the first name of a thing most often, and the model draws it best.
            name.singular if name.singular.startswith("red ") else name.thing.name,
            self._count(scene, phrase, name),
            name.is_plural,
            self._colour(scene, phrase, name),
            phrase.size,
            head,
            link,
        )
        scene.items.append(item)
        _note_reading(scene, head)
        return item

    def _is_shown(self, scene: Scene, phrase: NounPhrase, head: Phrase) -> bool:
        """Whether a thing is shown as itself; if not, note what is made of it."""
        assert head.name is not None
        target = head.name.thing.name
        is_located = phrase.link.kind == Kind.AT
        if is_located and not head.is_exact and target in _INTERIORS and phrase.link.text in _INSIDE:
            scene.places.append((2, replace(head, kind=Kind.PLACE, value="room")))
            return False
        if scene.items and (self._has_role(head, "part") or (is_located and self._is_held(head, target))):
            scene.left_out.append(head.text)
            return False
        return True

    def _is_held(self, head: Phrase, target: str) -> bool:
        """Whether a thing at which another one is only holds it, or is no more than like the thing of the model."""
        return self._is_container(head) or (not head.is_exact and target not in _SKY)

    def _count(self, scene: Scene, phrase: NounPhrase, name: Name) -> int:
        if phrase.count is None:
            return 1
        number = int(phrase.count.value)
        if not name.is_plural and not phrase.nouns[-1].text.endswith("s") and phrase.count.text.isdigit():
            return 1
        if not name.thing.plurals:
            scene.counts.append(f"{phrase.count.text}: the model does not count {name.thing.name}")
            return 1
        if number > MAX_COUNT:
            scene.counts.append(f"{phrase.count.text}: read as four, the most that the model counts")
        return min(number, MAX_COUNT)

    def _colour(self, scene: Scene, phrase: NounPhrase, name: Name) -> str | None:
        """Return the colour before a noun, if the thing can have it."""
        chosen = None
        for colour in phrase.colours:
            if colour.value in name.thing.colours and chosen is None:
                chosen = colour.value
                if not colour.is_exact:
                    scene.read_as[colour.text] = colour.value
            else:
                scene.left_out.append(f"{colour.text} (of {phrase.nouns[-1].text if phrase.nouns else name.singular})")
        return chosen

    def _is_container(self, phrase: Phrase) -> bool:
        return self._has_role(phrase, "container")

    def _has_role(self, phrase: Phrase, role: str) -> bool:
        return {phrase.text, phrase.text.removesuffix("s")} & self._lexicon.roles[role] != set()

    def _limit(self, scene: Scene) -> None:
        """Drop the things that are too many, and all places but a location and a time."""
        kept: list[Item] = []
        for item in scene.items:
            neighbours = sum(not one.phrase.is_exact for one in kept)
            is_twice = any(one.thing.name == item.thing.name for one in kept)
            is_over = len(kept) == MAX_THINGS or (not item.phrase.is_exact and neighbours == MAX_NEIGHBOURS)
            is_beside = any(one.count > 1 for one in kept) and not item.phrase.is_exact
            if is_twice or is_over or is_beside:
                scene.read_as.pop(item.phrase.text, None)
                if not is_twice or item.phrase.text not in {one.phrase.text for one in kept}:
                    scene.left_out.append(item.phrase.text)
            else:
                kept.append(item)
        scene.items = kept
        self._choose_places(scene)

    def _choose_places(self, scene: Scene) -> None:
        ranked = sorted(scene.places, key=lambda place: -place[0])
        chosen: list[tuple[int, Phrase]] = []
        for weight, phrase in ranked:
            is_time = phrase.value in _TIMES
            same = any(one.value == phrase.value for _, one in chosen)
            if not same and scene.ground is None and all((one.value in _TIMES) != is_time for _, one in chosen):
                chosen.append((weight, phrase))
            elif not same:
                scene.left_out.append(_bare(phrase.text))
                continue
            if not phrase.is_exact:
                scene.read_as[phrase.text] = phrase.value
        scene.places = sorted(chosen, key=lambda place: place[1].value in _TIMES)


def _without_monochrome(phrases: list[Phrase]) -> list[Phrase]:
    """Return phrases in which "black and white" before a style is one phrase of style."""
    found: list[Phrase] = []
    for phrase in phrases:
        if phrase.kind == Kind.STYLE and [one.text for one in found[-3:]] in (
            ["black", "and", "white"],
            ["black", "&", "white"],
        ):
            found[-3:] = [Phrase(Kind.STYLE, "black and white")]
        found.append(phrase)
    return found


def _is_verb(current: NounPhrase, phrase: Phrase) -> bool:
    """Whether a plural after a thing in the singular is a verb: "the lion watches"."""
    before = current.nouns[-1] if current.nouns else None
    if before is None or before.name is None or not before.is_exact or before.name.is_plural:
        return False
    return phrase.name is not None and phrase.name.is_plural and not phrase.is_exact


def _colour_ground(scene: Scene) -> None:
    """Give the background the first colour that belongs to no noun, if the prompt names no background."""
    for colour in scene.free_colours:
        if scene.ground is not None or scene.places:
            scene.left_out.append(colour.text)
            continue
        scene.ground = colour.value
        if not colour.is_exact:
            scene.read_as[colour.text] = colour.value


def _separated(current: NounPhrase, phrase: Phrase, scene: Scene) -> list[NounPhrase]:
    """Return the noun phrase that begins after a phrase without a noun, if one does."""
    if phrase.kind == Kind.GROUND:
        scene.ground = scene.ground or phrase.value
        if not phrase.is_exact:
            scene.read_as[phrase.text] = phrase.value
        return [NounPhrase(Phrase(Kind.STOP, ""))]
    if phrase.kind == Kind.STYLE:
        scene.styles.append(phrase.text)
        if current.is_empty and phrase.text in _SURROUNDINGS:
            scene.free_colours += current.colours
        current.colours.clear()
        return []
    if phrase.kind in (Kind.ARTICLE, Kind.FILLER, Kind.FUNCTION):
        return [] if current.is_empty else [NounPhrase(Phrase(Kind.FUNCTION, ""))]
    return [] if phrase.kind == Kind.OF and current.is_empty else [NounPhrase(phrase)]


def _set_attribute(current: NounPhrase, phrase: Phrase) -> None:
    if phrase.kind == Kind.COUNT:
        current.count = phrase
    elif phrase.kind == Kind.SIZE:
        current.size = phrase.value
    else:
        current.colours.append(phrase)


def _is_colour(phrases: list[Phrase], at: int) -> bool:
    """Whether "on red" is no background, since a noun follows: "on red velvet"."""
    phrase = phrases[at]
    return (
        phrase.kind == Kind.GROUND
        and phrase.is_flipped
        and at + 1 < len(phrases)
        and phrases[at + 1].kind in (*_NOUNS, Kind.COLOUR)
    )


def _bare(text: str) -> str:
    """Return a phrase without its prepositions and articles: "in the forest" -> "forest"."""
    return " ".join(word for word in text.split() if word not in FUNCTION_WORDS | _PREPOSITIONS) or text


def _note_reading(scene: Scene, head: Phrase) -> None:
    if not head.is_exact and head.name is not None:
        scene.read_as[head.text] = head.name.thing.name
