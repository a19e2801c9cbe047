"""Cancellation of a forward pass. Every network calls a `CancelCheck` before each block, layer or tile.

The check raises an exception when the job was cancelled or the engine closes, which stops the pass.
"""

from collections.abc import Callable

#: A function that raises an exception to stop the pass and otherwise returns at once. It is called often, so it should
#: read a flag and acquire no lock.
CancelCheck = Callable[[], None]


def never_cancelled() -> None:
    """A `CancelCheck` that never raises."""
