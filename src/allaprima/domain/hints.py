"""Hints: short messages between the processes that share one database. A hint may be lost, and is never the truth."""

from dataclasses import dataclass
from enum import StrEnum


class HintKind(StrEnum):
    """What may have happened."""

    #: A job was queued.
    WORK = "work"
    #: A process started a job.
    RUNNING = "running"
    #: A job ended.
    ENDED = "ended"
    #: A client asked to cancel a running job.
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Hint:
    """A message that the database may have changed. Its receiver reads the database, not the hint."""

    kind: HintKind
    #: The job; empty for `WORK`, which concerns the whole queue.
    job_id: str = ""

    def encode(self) -> str:
        """Return the hint as text of less than 200 bytes."""
        return f"{self.kind.value} {self.job_id}"

    @classmethod
    def parse(cls, text: str) -> "Hint | None":
        """Return the hint in a text, or None for a text of another program or of another version."""
        kind, _, job_id = text.partition(" ")
        return cls(HintKind(kind), job_id) if kind in set(HintKind) else None


@dataclass(frozen=True, slots=True)
class Reconnected:
    """Hints may have been lost until now, so their receiver reads everything that concerns it."""
