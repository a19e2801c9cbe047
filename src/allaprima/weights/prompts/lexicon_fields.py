"""The fields of a lexicon's file, and how they must agree. `lexicon` describes what they mean."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from allaprima.domain.fields import problems_in
from allaprima.weights.json_object import parse_object

#: Largest lexicon, in bytes. That of the built-in model has less than a megabyte.
MAX_LEXICON_BYTES = 2**23
#: The target of a word that has no neighbour, and the first character of the targets that are places.
NOTHING, PLACE = "-", "@"
#: The roles that words have in a prompt.
ROLES = frozenset(("function", "style", "container", "part", "material", "depiction"))
#: The colours that other spellings are read as.
NEEDED_COLOURS = ("gray", "purple")

Text = Annotated[str, Field(strict=True, min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1)]


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ThingFields(_Fields):
    """A thing that the model can generate."""

    names: Texts
    plurals: list[Text]
    colours: list[Text]
    wears: list[Text]


class GrammarFields(_Fields):
    """The words of captions."""

    things: Annotated[dict[Text, ThingFields], Field(min_length=1)]
    places: Annotated[dict[Text, Texts], Field(min_length=1)]
    colours: Texts


class WordFields(_Fields):
    """Words that are in no caption. The keys are targets, and the values are words, separated by spaces."""

    things: dict[Text, Text]
    colours: dict[Text, Text]
    roles: dict[Text, Text]


class LexiconFields(_Fields):
    """The whole file."""

    grammar: GrammarFields
    words: WordFields


def parse_lexicon(content: bytes) -> LexiconFields:
    """Parse a lexicon's file. Raises `ValueError` with a clause that names the invalid field."""
    if len(content) > MAX_LEXICON_BYTES:
        raise ValueError(f"has more than {MAX_LEXICON_BYTES} bytes")
    try:
        fields = LexiconFields.model_validate(parse_object(content))
    except ValidationError as exc:
        problem = problems_in(exc)[0]
        message = problem.message.replace("Input should", "must")
        raise ValueError(f"is invalid: {problem.field.encode('unicode_escape').decode()} {message}") from exc
    for clause in _contradictions(fields):
        raise ValueError(f"is invalid: {clause}")
    return fields


def _contradictions(fields: LexiconFields) -> Iterator[str]:
    """Yield a clause for each two fields that contradict each other."""
    grammar, words = fields.grammar, fields.words
    colours, places = set(grammar.colours), {PLACE + place for place in grammar.places}
    for name, thing in grammar.things.items():
        where = f"grammar.things.{name[:60]!a}"
        if thing.names[0] != name:
            yield f"{where} must have that name first"
        if thing.plurals and len(thing.plurals) != len(thing.names):
            yield f"{where} must have a plural for each of its names, or none"
        if unknown := sorted((set(thing.colours) - colours) | (set(thing.wears) - grammar.things.keys())):
            yield f"{where} has the unknown colour or accessory {unknown[0][:60]!a}"
    if missing := [colour for colour in NEEDED_COLOURS if colour not in colours]:
        yield f"grammar.colours must contain {missing[0]}"
    if unknown := sorted(words.things.keys() - {NOTHING} - places - grammar.things.keys()):
        yield f"words.things has the unknown target {unknown[0][:60]!a}"
    if unknown := sorted(words.colours.keys() - {f"#{colour}" for colour in colours}):
        yield f"words.colours has the unknown target {unknown[0][:60]!a}"
    if words.roles.keys() != ROLES:
        yield f"words.roles must have the roles {', '.join(sorted(ROLES))}"
