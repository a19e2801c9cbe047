"""The port of the current time. Apart from the other ports, since almost everything needs it."""

from typing import Protocol


class Clock(Protocol):
    """A source of the current time."""

    def __call__(self) -> float:
        """Return the unix time in seconds."""
