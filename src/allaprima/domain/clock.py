"""The port of the current time, and the server's clock. Apart from the other ports, since almost everything needs it.

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


class SteadyClock(Clock):
    """The unix time, which follows a change of the system's clock only when `adopt` is called.

    Until then deadlines that were computed before the change still hold.
    """

    def __init__(self, system: Clocks) -> None:
        self._system = system
        self._offset = self._system_offset()
        #: Sum of all changes that the data folder has seen, in whole seconds. Links hold times without them.
        self.shift = 0

    def __call__(self) -> float:
        """Return the unix time in seconds."""
        return self._system.monotonic() + self._offset

    @property
    def offset(self) -> float:
        """The unix time at the zero of the monotonic clock."""
        return self._offset

    @property
    def jump(self) -> float:
        """Seconds by which the system's clock was set and that were not adopted; negative: it was set back."""
        return self._system_offset() - self._offset

    def adopt(self, jump: float) -> None:
        """Follow a change of the system's clock by some seconds."""
        self._offset += jump

    def _system_offset(self) -> float:
        return self._system.unix() - self._system.monotonic()
