"""Cancellation of a forward pass: every pass calls a `CancelCheck` before each block, encoder layer and decoder stage.

This is how a cancelled job or an expired deadline stops an image while it is being computed.
"""

from collections.abc import Callable

#: Raises an exception to stop the pass, otherwise returns at once. It is called often, so it should read a flag and
#: take no lock.
CancelCheck = Callable[[], None]


def never_cancelled() -> None:
    """The `CancelCheck` of a pass that cannot be cancelled."""
