"""JSON objects from damaged files."""

import pytest

from allaprima.weights.json_object import parse_object


def test_object_is_parsed_from_text_and_from_bytes() -> None:
    assert parse_object('{"a": [1, "ä"]}') == parse_object('{"a": [1, "ä"]}'.encode()) == {"a": [1, "ä"]}


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        (b"\xff", "is not UTF-8: the byte at offset 0 is invalid"),
        ("", "is not JSON"),
        ('{"a": 1', "is not JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"a":' * 100_000, "is nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "has a number with thousands of digits"),
        ('{"a": {"b": 1, "b": 1}}', "has the key 'b' twice in one object"),
        ('{"\\ud800": 1}', "has a key that is not valid Unicode"),
        ("[1]", "is not a JSON object"),
        ("null", "is not a JSON object"),
    ],
    ids=range(10),
)
def test_anything_else_is_refused_with_its_reason(text: str | bytes, clause: str) -> None:
    with pytest.raises(ValueError, match=clause):
        parse_object(text)
