"""Combinations that no fit of the model ever sees, so that the suite can ask for what was never shown.

A thing on a background, a thing in a colour, or two things together are held out by a hash of their names: about one
combination in sixteen. The open backdrop, which no words ask for, and a thing's usual colour, which is seen without
the word, keep nothing apart. What a thing wears or holds is not looked at, and the suite asks for none of it. The
judge, which has to know such scenes when it sees them, is fitted to them too. `python -m training.data.held_out`
lists them.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from training.data.art import DYES
from training.data.backgrounds import BACKGROUNDS, OPEN
from training.data.objects import BY_ICON, THINGS, Thing

#: One combination in so many is held out.
ONE_IN = 16


class Described(Protocol):
    """What is asked of a scene's subject."""

    @property
    def icon(self) -> str:
        """Name of the thing."""

    @property
    def dye(self) -> str | None:
        """Its colour, None for its usual one."""


def is_pair_held_out(one: str, other: str) -> bool:
    """Say whether two names, whatever their order, are kept apart."""
    return zlib.crc32("+".join(sorted((one, other))).encode()) % ONE_IN == 0


def is_held_out(subjects: Sequence[Described], background: str) -> bool:
    """Say whether a scene holds any combination that is held out."""
    for subject in subjects:
        if background != OPEN and is_pair_held_out(subject.icon, background):
            return True
        if subject.dye is not None and _is_dye_held_out(BY_ICON[subject.icon], subject.dye):
            return True
    return any(is_pair_held_out(a.icon, b.icon) for a, b in itertools.combinations(subjects, 2))


def _is_dye_held_out(thing: Thing, dye: str) -> bool:
    # Apart from the names of backgrounds, some of which are colours' too.
    return dye != thing.colour and is_pair_held_out(thing.icon, f"{dye} one")


def combinations() -> Iterator[tuple[str, str, str]]:
    """List what is held out: kind, thing, and background, colour or other thing."""
    for thing in THINGS:
        for name in BACKGROUNDS:
            if is_pair_held_out(thing.icon, name):
                yield "background", thing.icon, name
        if thing.colour is not None:
            for dye in DYES:
                if _is_dye_held_out(thing, dye):
                    yield "colour", thing.icon, dye
    for one, other in itertools.combinations([thing.icon for thing in THINGS], 2):
        if is_pair_held_out(one, other):
            yield "pair", one, other


def main() -> None:
    """Print the list, a combination a line."""
    for kind, one, other in combinations():
        print(f"{kind}\t{one}\t{other}")


if __name__ == "__main__":
    main()
