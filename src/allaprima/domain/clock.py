"""The port of the current time. Apart from the other ports, since almost everything needs it.

Times that are stored or shown are unix times. Durations are differences of a monotonic clock, which is never set.
"""

from typing import NamedTuple, Protocol


class Clock(Protocol):
    """A source of the current time."""

    def __call__(self) -> float:
        """Return the unix time in seconds; of a monotonic clock, the seconds since some moment."""


class Clocks(NamedTuple):
    """The clock of unix times, and the one that measures durations."""

    unix: Clock
    monotonic: Clock
