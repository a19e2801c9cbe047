"""The fields of a lexicon's file: what is wrong in them is refused by field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from allaprima.errors import WeightsCorrupt
from allaprima.weights.paths import sketch_folder
from allaprima.weights.prompts.lexicon import LEXICON_FILE
from allaprima.weights.prompts.lexicon_fields import MAX_LEXICON_BYTES
from allaprima.weights.prompts.reader import open_reader

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def content() -> bytes:
    return (sketch_folder() / LEXICON_FILE).read_bytes()


def refusal(folder: Path, content: bytes) -> str:
    """Return the clause with which a model folder's lexicon is refused."""
    path = folder / LEXICON_FILE
    path.write_bytes(content)
    with pytest.raises(WeightsCorrupt) as caught:
        open_reader(folder)
    assert caught.value.message.startswith(f"{path} ")
    assert caught.value.message.isprintable()
    return caught.value.message.removeprefix(f"{path} ")


def dog(values: dict[str, Any]) -> dict[str, Any]:
    return values["grammar"]["things"]["dog"]


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        (lambda values: values.pop("grammar"), "grammar is required"),
        (lambda values: values.update(more=1), "more is not a known field"),
        (lambda values: values["grammar"].update(things={}), "grammar.things"),
        (lambda values: values["grammar"].update(things=[]), "grammar.things"),
        (lambda values: values["grammar"].update(things=None), "grammar.things"),
        (lambda values: values["grammar"].update(places={}), "grammar.places"),
        (lambda values: values["grammar"]["places"].update(beach=[]), "grammar.places.beach"),
        (lambda values: values["grammar"]["places"].update(beach="on a beach"), "grammar.places.beach"),
        (lambda values: values["grammar"]["places"].update(beach=["on the"]), "a phrase in grammar.places has no noun"),
        (lambda values: values["grammar"]["places"].update(moor=["on a moor"]), "grammar.places must be beach, "),
        (lambda values: values["grammar"]["places"].pop("room"), "words.things has the unknown target '@room'"),
        (lambda values: values["grammar"].update(colours=[]), "grammar.colours"),
        (lambda values: values["grammar"].update(colours=[1]), "grammar.colours.0"),
        (lambda values: values["grammar"]["colours"].remove("gray"), "grammar.colours must contain gray"),
        (lambda values: dog(values).update(names=[]), "grammar.things.dog.names"),
        (lambda values: dog(values).update(names=[7]), "grammar.things.dog.names.0"),
        (lambda values: dog(values).update(names=["puppy"], plurals=[]), "'dog' must have that name first"),
        (lambda values: dog(values).update(plurals=["dogs"]), "'dog' must have a plural for each of its names"),
        (lambda values: dog(values).update(colours=["mauve"]), "unknown colour or accessory 'mauve'"),
        (lambda values: dog(values).update(wears=["monocle"]), "unknown colour or accessory 'monocle'"),
        (lambda values: dog(values).update(more=[]), "is not a known field"),
        (lambda values: values["words"]["things"].update(nothing="a"), "words.things has the unknown target 'nothing'"),
        (lambda values: values["words"]["things"].update(dog=["a"]), "words.things.dog"),
        (lambda values: values["words"]["things"].update(dog=None), "words.things.dog"),
        (lambda values: values["words"]["colours"].update({"#mauve": "a"}), "words.colours has the unknown target"),
        (lambda values: values["words"]["roles"].pop("part"), "words.roles must have the roles"),
        (lambda values: values["words"]["roles"].update(part=1), "words.roles.part"),
        (lambda values: values["grammar"]["things"].pop("star"), "star"),
        (lambda values: values["words"].update({"\n\x1b": 1}), "is not a known field"),
    ],
    ids=range(29),
)
def test_invalid_field_is_refused_by_name(tmp_path: Path, content: bytes, change: Change, clause: str) -> None:
    values = json.loads(content)
    change(values)

    message = refusal(tmp_path, json.dumps(values).encode())

    assert message.startswith("is invalid: ")
    assert clause in message


@pytest.mark.parametrize(
    ("damaged", "clause"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"[]", "is not a JSON object"),
        (b'{"words": 1, "words": 1}', "has the key 'words' twice"),
        (b" " * (MAX_LEXICON_BYTES + 1), f"has more than {MAX_LEXICON_BYTES} bytes"),
    ],
    ids=["empty", "no text", "deep", "list", "twice", "large"],
)
def test_file_that_is_no_lexicon_is_refused(tmp_path: Path, damaged: bytes, clause: str) -> None:
    assert clause in refusal(tmp_path, damaged)


def test_folder_without_lexicon_has_no_reader(tmp_path: Path) -> None:
    assert open_reader(tmp_path) is None
