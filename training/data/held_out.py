"""Held-out combinations, which are not in the model's training data, so that the benchmark can test generalisation.

A combination is an object and a background, an object and a colour variant, or two objects. A hash of the two names
selects about one combination in sixteen. A held-out combination never has the open background, which no caption names,
or the usual colour of an object, which the model sees without its name. Accessories are ignored: the benchmark has
none. The training data of the evaluator includes held-out combinations, since the evaluator must recognise them.
`python -m training.data.held_out` lists them.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from training.data.art import COLOUR_VARIANTS
from training.data.backgrounds import BACKGROUNDS, OPEN
from training.data.objects import BY_ICON, OBJECTS, ObjectClass

#: Inverse of the share of combinations that are held out.
ONE_IN = 16


class Described(Protocol):
    """The attributes of a scene's subject on which a combination depends."""

    @property
    def icon(self) -> str:
        """The icon of the object class."""

    @property
    def variant(self) -> str | None:
        """The colour variant; None: the usual colour."""


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
    # The word "one" makes the name of a variant differ from that of a plain background.
    return variant != obj.colour and is_pair_held_out(obj.icon, f"{variant} one")


def combinations() -> Iterator[tuple[str, str, str]]:
    """Yield the held-out combinations as (kind, object, other).

    The kind is "background", "colour" or "pair"; `other` is a background, a colour variant or a second object.
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
