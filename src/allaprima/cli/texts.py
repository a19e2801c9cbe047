"""Texts of the command line's arguments in terminals whose encoding is narrower than UTF-8."""

import os


def decoded(text: str) -> str:
    """Return an argument as UTF-8 where Python kept bytes of it that the terminal's encoding lacks (PEP 383).

    A text whose bytes are not UTF-8 is returned as it is.
    """
    if not has_bytes(text):
        return text
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        return text


def has_bytes(text: str) -> bool:
    """Whether a text contains bytes that could not be decoded."""
    return any("\ud800" <= character <= "\udfff" for character in text)
