"""The result of moving a data folder to PostgreSQL and a bucket."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One value of the data folder and of the target, such as the number of a table's rows."""

    name: str
    folder: str
    target: str

    @property
    def is_equal(self) -> bool:
        """Whether the target has what the folder has."""
        return self.folder == self.target


@dataclass(frozen=True, slots=True)
class Moved:
    """What was compared, and what is not as it should be; the folder is moved only if nothing is."""

    checks: tuple[Check, ...]
    #: Sentences, each of which names an image, a table or a sum.
    problems: tuple[str, ...]
