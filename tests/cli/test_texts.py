"""Arguments in UTF-8 in terminals of other encodings."""

import os

import pytest

from allaprima.cli.texts import decoded, has_bytes


@pytest.mark.parametrize("text", ["", "a red apple", "größe", "\u6a21\u578b", "\U0001f34e"])
def test_text_that_was_decoded_stays_as_it_is(text: str) -> None:
    assert decoded(text) == text
    assert not has_bytes(text)


def test_bytes_of_utf8_that_were_kept_are_decoded() -> None:
    kept = "größe".encode().decode("ascii", "surrogateescape")
    assert has_bytes(kept)
    assert decoded(kept) == "größe"


@pytest.mark.parametrize("data", [b"\xff", b"a\xc3", b"\xed\xa0\x80"])
def test_bytes_that_are_not_utf8_stay_as_they_are(data: bytes) -> None:
    kept = os.fsdecode(data)
    assert decoded(kept) == kept
    assert has_bytes(decoded(kept))


def test_surrogate_that_stands_for_no_byte_stays_as_it_is() -> None:
    assert decoded("\ud800") == "\ud800"
