"""The question every forward pass asks before each block, encoder layer and decoder stage: may I go on?

A `Check` is called with nothing and returns nothing; to stop the pass it raises. It must be cheap (a flag, not a
lock) and is how a cancel or a deadline reaches the middle of a picture.
"""

from collections.abc import Callable

#: Raises to stop the pass; otherwise returns at once.
Check = Callable[[], None]


def no_check() -> None:
    """Let the pass go on."""
