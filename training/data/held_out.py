"""Combinations that no fit of the model sees, so that the benchmark can test generalisation.

A hash of the names selects about one combination in sixteen of object and background, object and colour variant, or
two objects. The open background, which no caption names, and the usual colour of an object, which is seen without being
named, are never part of a held-out combination. Accessories are ignored, and the benchmark asks for none. The evaluator
is fitted to held-out combinations too, since it must recognise them. `python -m training.data.held_out` lists them.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from training.data.art import COLOUR_VARIANTS
from training.data.backgrounds import BACKGROUNDS, OPEN
from training.data.objects import BY_ICON, OBJECTS, ObjectClass

#: One combination of this number is held out.
ONE_IN = 16


class Described(Protocol):
    """The attributes of a scene's subject that matter here."""

    @property
    def icon(self) -> str:
        """Icon of the object class."""

    @property
    def variant(self) -> str | None:
        """Its colour variant; None: its usual colour."""


def is_pair_held_out(one: str, other: str) -> bool:
    """Whether the combination of two names is held out; their order does not matter."""
    return zlib.crc32("+".join(sorted((one, other))).encode()) % ONE_IN == 0


def is_held_out(subjects: Sequence[Described], background: str) -> bool:
    """Whether a scene contains any combination that is held out."""
    for subject in subjects:
        if background != OPEN and is_pair_held_out(subject.icon, background):
            return True
        if subject.variant is not None and _is_variant_held_out(BY_ICON[subject.icon], subject.variant):
            return True
    return any(is_pair_held_out(a.icon, b.icon) for a, b in itertools.combinations(subjects, 2))


def _is_variant_held_out(obj: ObjectClass, variant: str) -> bool:
    # "one" distinguishes the name of a variant from that of a plain background.
    return variant != obj.colour and is_pair_held_out(obj.icon, f"{variant} one")


def combinations() -> Iterator[tuple[str, str, str]]:
    """Yield the held-out combinations: "background", "colour" or "pair", an object, and its background, colour variant
    or other object.
    """
    for obj in OBJECTS:
        for name in BACKGROUNDS:
            if is_pair_held_out(obj.icon, name):
                yield "background", obj.icon, name
        if obj.colour is not None:
            for variant in COLOUR_VARIANTS:
                if _is_variant_held_out(obj, variant):
                    yield "colour", obj.icon, variant
    for one, other in itertools.combinations([obj.icon for obj in OBJECTS], 2):
        if is_pair_held_out(one, other):
            yield "pair", one, other


def main() -> None:
    """Print the held-out combinations, one per line."""
    for kind, one, other in combinations():
        print(f"{kind}\t{one}\t{other}")


if __name__ == "__main__":
    main()
